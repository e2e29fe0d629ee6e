// Feeds a fused array as fast as it accepts and writes down every result and its cycle.
//
// Arguments: stimulus file, result file, columns, rows, beats a stream, results a column, cycles at most.
// Stimulus: 64-bit beats, every row's in turn, then every column's. Results: 64-bit pairs (cycle, value), columns in turn.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "Vfused_array.h"
#include "ports.h"

namespace {

constexpr unsigned kBeat = 41, kResult = 33;

}  // namespace

int main(int argc, char** argv) {
    if (argc != 8) return 2;
    const unsigned columns = std::atoi(argv[3]), rows = std::atoi(argv[4]);
    const std::size_t beats = std::atoll(argv[5]), results = std::atoll(argv[6]), limit = std::atoll(argv[7]);
    std::vector<uint64_t> stimulus((rows + columns) * beats);
    std::FILE* in = std::fopen(argv[1], "rb");
    if (!in || std::fread(stimulus.data(), 8, stimulus.size(), in) != stimulus.size()) return 3;
    std::fclose(in);

    VerilatedContext context;
    Vfused_array top{&context};
    auto edge = [&] { top.clk = 1; top.eval(); top.clk = 0; top.eval(); };
    top.eight_bit = 0;
    top.a_signed = top.w_signed = 1;
    top.a_threshold = top.w_threshold = 7;
    top.a_k = 1;
    top.w_k = 2;
    top.a___05Fvalid = top.w___05Fvalid = 0;
    top.result___05Fready = (columns < 64 ? 1ull << columns : 0) - 1;
    top.rst = 1;
    edge();
    edge();
    top.rst = 0;

    std::vector<std::size_t> a_place(rows), w_place(columns);
    std::vector<std::vector<uint64_t>> taken(columns);
    for (auto& column : taken) column.reserve(2 * results);
    auto offer = [&](auto& payload, auto& valid, unsigned stream, const uint64_t* items, std::size_t place) {
        set(valid, stream, 1, place < beats);
        if (place < beats) set(payload, stream * kBeat, kBeat, items[place]);
    };
    for (unsigned row = 0; row < rows; ++row) offer(top.a___05Fpayload, top.a___05Fvalid, row, &stimulus[row * beats], 0);
    for (unsigned column = 0; column < columns; ++column)
        offer(top.w___05Fpayload, top.w___05Fvalid, column, &stimulus[(rows + column) * beats], 0);
    std::size_t missing = columns * results;
    for (std::size_t cycle = 0; missing; ++cycle) {
        if (cycle == limit) return 4;
        top.eval();
        for (unsigned column = 0; column < columns; ++column)
            if (get(top.result___05Fvalid, column, 1) && taken[column].size() < 2 * results) {
                taken[column].push_back(cycle);
                taken[column].push_back(get(top.result___05Fpayload, column * kResult, kResult));
                --missing;
            }
        std::vector<bool> a_taken(rows), w_taken(columns);
        for (unsigned row = 0; row < rows; ++row) a_taken[row] = a_place[row] < beats && get(top.a___05Fready, row, 1);
        for (unsigned column = 0; column < columns; ++column)
            w_taken[column] = w_place[column] < beats && get(top.w___05Fready, column, 1);
        edge();
        for (unsigned row = 0; row < rows; ++row)
            if (a_taken[row]) offer(top.a___05Fpayload, top.a___05Fvalid, row, &stimulus[row * beats], ++a_place[row]);
        for (unsigned column = 0; column < columns; ++column)
            if (w_taken[column])
                offer(top.w___05Fpayload, top.w___05Fvalid, column, &stimulus[(rows + column) * beats], ++w_place[column]);
    }
    std::FILE* out = std::fopen(argv[2], "wb");
    if (!out) return 5;
    for (const auto& column : taken) std::fwrite(column.data(), 8, column.size(), out);
    return std::fclose(out) ? 6 : 0;
}
