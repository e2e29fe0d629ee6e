// Runs tile passes on a wide engine out of two operand buffers and writes down every result and its cycle.
//
// Arguments: stimulus file, result file, columns, rows, bits of a bank's word, bits of its address, words a bank, passes, results
// a column, cycles at most.
// Stimulus, 64 bits each: the formats of A and W, the commands, every row's bank in turn, then every column's.
// Results, 64 bits each: pairs (cycle, value), columns in turn; then the cycles in which a word entered the array.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "Vwide_engine.h"
#include "ports.h"

namespace {
constexpr unsigned kResult = 33;
}

int main(int argc, char** argv) {
    if (argc != 11) return 2;
    const unsigned columns = std::atoi(argv[3]), rows = std::atoi(argv[4]), word = std::atoi(argv[5]), address = std::atoi(argv[6]);
    const std::size_t words = std::atoll(argv[7]), passes = std::atoll(argv[8]), results = std::atoll(argv[9]), limit = std::atoll(argv[10]);
    std::vector<uint64_t> stimulus(2 + passes + (rows + columns) * words);
    std::FILE* in = std::fopen(argv[1], "rb");
    if (!in || std::fread(stimulus.data(), 8, stimulus.size(), in) != stimulus.size()) return 3;
    std::fclose(in);
    const uint64_t* commands = &stimulus[2];
    const uint64_t* banks = &stimulus[2 + passes];

    VerilatedContext context;
    Vwide_engine top{&context};
    auto edge = [&] { top.clk = 1; top.eval(); top.clk = 0; top.eval(); };
    top.eight_bit = 0;
    top.a_format = stimulus[0];
    top.w_format = stimulus[1];
    top.command___05Fvalid = 0;
    top.credit = 1;
    top.rst = 1;
    edge();
    edge();
    top.rst = 0;

    std::vector<std::vector<uint64_t>> taken(columns);
    for (auto& column : taken) column.reserve(2 * results);
    // A memory that answers in the next cycle: what to put on the data bus after the edge.
    std::vector<uint64_t> a_read(rows), w_read(columns);
    auto sample = [&](auto& enable, auto& place, std::vector<uint64_t>& read, const uint64_t* bank) {
        for (unsigned i = 0; i < read.size(); ++i, bank += words)
            if (get(enable, i, 1)) {
                const uint64_t at = get(place, i * address, address);
                read[i] = at < words ? bank[at] : 0;
            }
    };
    auto answer = [&](auto& data, const std::vector<uint64_t>& read) {
        for (unsigned i = 0; i < read.size(); ++i) set(data, i * word, word, read[i]);
    };
    std::size_t missing = columns * results, command = 0;
    uint64_t working = 0;
    for (std::size_t cycle = 0; missing; ++cycle) {
        if (cycle == limit) return 4;
        top.command___05Fvalid = command < passes;
        if (command < passes) top.command___05Fpayload = commands[command];
        top.eval();
        working += top.working;
        for (unsigned column = 0; column < columns; ++column)
            if (get(top.result_valid, column, 1) && taken[column].size() < 2 * results) {
                taken[column].push_back(cycle);
                taken[column].push_back(get(top.result, column * kResult, kResult));
                --missing;
            }
        sample(top.a_enable, top.a_address, a_read, banks);
        sample(top.w_enable, top.w_address, w_read, banks + rows * words);
        command += top.command___05Fvalid && top.command___05Fready;
        edge();
        answer(top.a_data, a_read);
        answer(top.w_data, w_read);
    }
    std::FILE* out = std::fopen(argv[2], "wb");
    if (!out) return 5;
    for (const auto& column : taken) std::fwrite(column.data(), 8, column.size(), out);
    std::fwrite(&working, 8, 1, out);
    return std::fclose(out) ? 6 : 0;
}
