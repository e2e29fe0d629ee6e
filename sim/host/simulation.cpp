// The accelerator's Verilog, an AXI4 memory and an AXI4-Lite master in one shared library; simulation.py drives it.
//
// A clock cycle is: drive the inputs, settle (clk = 0), sample the handshakes, rising edge (clk = 1). Everything the
// memory drives is decided before it sees the cycle's outputs, so no path through it is combinational.
//
// The build defines BUS_BYTES, WAVES for a model with waveforms, and DRAM_BANKS, DRAM_ROWS, DRAM_COLUMNS, DRAM_RCD, DRAM_RP, DRAM_RAS
// and DRAM_WR for an accelerator with an engine beside the memory.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

#if defined(WAVES)
#include "verilated_fst_c.h"
#endif

// Verilator's spelling of names with two underscores.
#define M_AXI(port) top.m_axi___05F##port
#define S_AXI(port) top.s_axi___05F##port
#define INTERRUPT top.irq
#define DRAM(port) top.dram___05F##port

namespace {

constexpr uint8_t kOkay = 0, kDecodeError = 3;
constexpr uint8_t kIncrementing = 1;
constexpr size_t kOutstanding = 16;       // bursts the memory queues each way
constexpr size_t kEarlyBeats = 16;        // write data it takes ahead of their address
constexpr uint64_t kRegisterCycles = 100'000;  // a register access that takes longer is stuck

using Beat = std::array<uint8_t, BUS_BYTES>;

constexpr int log2_of(int value) { return value > 1 ? 1 + log2_of(value / 2) : 0; }

// Verilator's ports of 8 to 64 bits are integers, wider ones arrays of 32-bit words; both are little-endian in memory.
template <typename Port> void set_bytes(Port& port, const Beat& beat) {
    static_assert(sizeof(Port) == BUS_BYTES, "the bus is not as wide as the configuration says");
    std::memcpy(&port, beat.data(), BUS_BYTES);
}
template <typename Port> Beat get_bytes(const Port& port) {
    static_assert(sizeof(Port) == BUS_BYTES, "the bus is not as wide as the configuration says");
    Beat beat;
    std::memcpy(beat.data(), &port, BUS_BYTES);
    return beat;
}

struct Address {
    uint32_t address;
    uint8_t length, size, burst;
    bool operator==(const Address& other) const {
        return address == other.address && length == other.length && size == other.size && burst == other.burst;
    }
};

struct Data {
    Beat bytes;
    uint32_t strobes;
    bool last;
    bool operator==(const Data& other) const {
        return bytes == other.bytes && strobes == other.strobes && last == other.last;
    }
};

struct Read {
    uint64_t address;
    unsigned beats;
    uint64_t due;
};

struct Write {
    uint64_t address;
    unsigned beats;
    std::vector<Data> data;
};

struct Response {
    Write write;
    uint64_t due;
};

#if defined(DRAM_BANKS)
struct Bank {
    bool open = false;
    uint32_t row = 0;
    int64_t activated = -1000, written = -1000, precharged = -1000;  // cycles
    std::array<uint32_t, DRAM_COLUMNS> words{};
};
#endif

}  // namespace

class Simulation {
public:
    Simulation(uint64_t memory_size, uint64_t latency, double stall, uint64_t seed, const char* waves)
        : memory_size(memory_size), memory(static_cast<uint8_t*>(std::calloc(memory_size, 1)), &std::free), latency(latency),
          stall_below(static_cast<uint64_t>(stall * 4294967296.0)), random(seed * 2 + 1), context(prepare(seed)),
          top(context.get(), "top") {
        if (!memory) throw std::bad_alloc();
#if defined(WAVES)
        if (waves) {
            tracer = std::make_unique<VerilatedFstC>();
            top.trace(tracer.get(), 99);
            tracer->open(waves);
        }
#else
        (void)waves;
#endif
        top.clk = 0;
        top.rst = 1;
        quiet();
        top.eval();
    }

    ~Simulation() {
        top.final();
#if defined(WAVES)
        if (tracer) tracer->close();
#endif
    }

    void reset() {
        quiet();
        reads.clear();
        writes.clear();
        early.clear();
        responses.clear();
        top.rst = 1;
        for (int i = 0; i < 4; ++i) cycle();
        top.rst = 0;
        cycle();
    }

    uint8_t register_read(uint32_t address, uint32_t* data) {
        bool addressed = false;
        S_AXI(araddr) = address;
        for (uint64_t i = 0; i < kRegisterCycles; ++i) {
            if (!addressed && !S_AXI(arvalid)) S_AXI(arvalid) = go();
            S_AXI(rready) = go();
            cycle();
            if (fired.ar) addressed = true, S_AXI(arvalid) = 0;
            if (fired.r) {
                S_AXI(rready) = 0;
                *data = fired.data;
                return fired.response;
            }
        }
        throw std::runtime_error("a register read at offset " + hex(address) + " was never answered");
    }

    uint8_t register_write(uint32_t address, uint32_t data) {
        bool addressed = false, written = false;
        S_AXI(awaddr) = address;
        S_AXI(wdata) = data;
        S_AXI(wstrb) = 0xF;
        for (uint64_t i = 0; i < kRegisterCycles; ++i) {
            if (!addressed && !S_AXI(awvalid)) S_AXI(awvalid) = go();
            if (!written && !S_AXI(wvalid)) S_AXI(wvalid) = go();
            S_AXI(bready) = go();
            cycle();
            if (fired.aw) addressed = true, S_AXI(awvalid) = 0;
            if (fired.w) written = true, S_AXI(wvalid) = 0;
            if (fired.b) {
                S_AXI(bready) = 0;
                return fired.response;
            }
        }
        throw std::runtime_error("a register write at offset " + hex(address) + " was never answered");
    }

    // Runs `count` cycles, or fewer if `until_interrupt` and the interrupt rises. True if the interrupt is up.
    bool run(uint64_t count, bool until_interrupt) {
        for (uint64_t i = 0; i < count && !(until_interrupt && INTERRUPT); ++i) cycle();
        return INTERRUPT;
    }

    const uint64_t memory_size;
    const std::unique_ptr<uint8_t, void (*)(void*)> memory;
    uint64_t cycles = 0, read_beats = 0, write_beats = 0;
    std::unordered_map<uint64_t, uint8_t> answers;  // other than OKAY, of beats inside
    std::string failure;

private:
    // Registers without a reset value start at random, so that nothing can rely on zero.
    static std::unique_ptr<VerilatedContext> prepare(uint64_t seed) {
        auto context = std::make_unique<VerilatedContext>();
        context->randReset(2);
        context->randSeed(static_cast<int>(seed % 2147483647 + 1));
#if defined(WAVES)
        context->traceEverOn(true);
#endif
        return context;
    }

    static std::string hex(uint64_t value) {
        char text[24];
        std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
        return text;
    }

    [[noreturn]] void violation(const std::string& what) const {
        throw std::runtime_error("AXI4 rule broken in cycle " + std::to_string(cycles) + ": " + what);
    }

    // True unless a stall is drawn (splitmix64).
    bool go() {
        if (!stall_below) return true;
        uint64_t z = (random += 0x9E3779B97F4A7C15u);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return (z >> 32) >= stall_below;
    }

    void quiet() {
        S_AXI(awvalid) = S_AXI(wvalid) = S_AXI(bready) = S_AXI(arvalid) = S_AXI(rready) = 0;
        S_AXI(awaddr) = S_AXI(araddr) = S_AXI(wdata) = S_AXI(wstrb) = 0;
        M_AXI(arready) = M_AXI(rvalid) = M_AXI(awready) = M_AXI(wready) = M_AXI(bvalid) = 0;
        M_AXI(rresp) = M_AXI(rlast) = M_AXI(bresp) = 0;
        set_bytes(M_AXI(rdata), Beat{});
        held_ar = held_aw = held_w = r_taken = b_taken = false;
#if defined(DRAM_BANKS)
        banks = {};
        found = {};
#endif
    }

    void cycle() {
        if (!top.rst) drive();
        top.clk = 0;
        top.eval();
        dump(2 * cycles);
        sample();
        top.clk = 1;
        top.eval();
        dump(2 * cycles + 1);
        ++cycles;
    }

    void dump(uint64_t time) {
#if defined(WAVES)
        if (tracer) tracer->dump(time);
#else
        (void)time;
#endif
    }

    bool inside(uint64_t address) const { return address + BUS_BYTES <= memory_size; }

    uint8_t answer(uint64_t address) const {
        if (!inside(address)) return kDecodeError;
        const auto found = answers.find(address);
        return found == answers.end() ? kOkay : found->second;
    }

    void drive() {
        drive_banks();
        if (r_taken) M_AXI(rvalid) = 0;
        if (b_taken) M_AXI(bvalid) = 0;
        M_AXI(arready) = reads.size() < kOutstanding && go();
        M_AXI(awready) = writes.size() + responses.size() < kOutstanding && go();
        M_AXI(wready) = early.size() < kEarlyBeats && go();
        if (!M_AXI(rvalid) && !reads.empty() && reads.front().due <= cycles && go()) {
            Read& read = reads.front();
            Beat beat{};
            check_banks_closed("a read");
            if (inside(read.address)) std::memcpy(beat.data(), memory.get() + read.address, BUS_BYTES);
            set_bytes(M_AXI(rdata), beat);
            M_AXI(rresp) = answer(read.address);
            M_AXI(rlast) = read.beats == 1;
            M_AXI(rvalid) = 1;
            read.address += BUS_BYTES;
            if (--read.beats == 0) reads.pop_front();
        }
        if (!M_AXI(bvalid) && !responses.empty() && responses.front().due <= cycles && go()) {
            M_AXI(bresp) = commit(responses.front().write);
            M_AXI(bvalid) = 1;
            responses.pop_front();
        }
    }

    // A write reaches the memory only with its response: whoever reads it back earlier gets the old bytes.
    uint8_t commit(const Write& write) {
        check_banks_closed("a write");
        uint8_t response = kOkay;
        uint64_t address = write.address;
        for (const Data& data : write.data) {
            response = std::max(response, answer(address));
            for (int i = 0; i < BUS_BYTES && inside(address); ++i)
                if (data.strobes >> i & 1) memory.get()[address + i] = data.bytes[i];
            address += BUS_BYTES;
        }
        return response;
    }

    void sample() {
        if (top.rst) return;
        sample_banks();
        fired = {};
        fired.aw = S_AXI(awvalid) && S_AXI(awready);
        fired.w = S_AXI(wvalid) && S_AXI(wready);
        fired.b = S_AXI(bvalid) && S_AXI(bready);
        fired.ar = S_AXI(arvalid) && S_AXI(arready);
        fired.r = S_AXI(rvalid) && S_AXI(rready);
        if (fired.b) fired.response = S_AXI(bresp);
        if (fired.r) fired.response = S_AXI(rresp), fired.data = S_AXI(rdata);

        if (M_AXI(arvalid) || held_ar) {
            const Address ar{M_AXI(araddr), static_cast<uint8_t>(M_AXI(arlen)), static_cast<uint8_t>(M_AXI(arsize)),
                             static_cast<uint8_t>(M_AXI(arburst))};
            check_held("AR", held_ar, M_AXI(arvalid), ar == last_ar);
            held_ar = !M_AXI(arready);
            last_ar = ar;
            if (M_AXI(arready)) {
                check_burst("AR", ar);
                reads.push_back({ar.address, ar.length + 1u, cycles + latency});
            }
        }
        if (M_AXI(awvalid) || held_aw) {
            const Address aw{M_AXI(awaddr), static_cast<uint8_t>(M_AXI(awlen)), static_cast<uint8_t>(M_AXI(awsize)),
                             static_cast<uint8_t>(M_AXI(awburst))};
            check_held("AW", held_aw, M_AXI(awvalid), aw == last_aw);
            held_aw = !M_AXI(awready);
            last_aw = aw;
            if (M_AXI(awready)) {
                check_burst("AW", aw);
                writes.push_back({aw.address, aw.length + 1u, {}});
            }
        }
        if (M_AXI(wvalid) || held_w) {
            const Data w{get_bytes(M_AXI(wdata)), static_cast<uint32_t>(M_AXI(wstrb)), M_AXI(wlast) != 0};
            check_held("W", held_w, M_AXI(wvalid), w == last_w);
            held_w = !M_AXI(wready);
            last_w = w;
            if (M_AXI(wready)) {
                early.push_back(w);
                ++write_beats;
            }
        }
        while (!early.empty() && !writes.empty()) {
            Write& write = writes.front();
            write.data.push_back(early.front());
            const bool last = write.data.size() == write.beats;
            if (early.front().last != last)
                violation("wlast is " + std::to_string(!last) + " on beat " + std::to_string(write.data.size()) + " of " +
                          std::to_string(write.beats));
            early.pop_front();
            if (last) {
                responses.push_back({std::move(write), cycles + latency});
                writes.pop_front();
            }
        }
        // What the accelerator takes now is withdrawn only after the rising edge.
        r_taken = M_AXI(rvalid) && M_AXI(rready);
        b_taken = M_AXI(bvalid) && M_AXI(bready);
        if (r_taken) ++read_beats;
    }

#if defined(DRAM_BANKS)
    // The banks behind the engine hold the same memory; an open row lives in its bank's buffer until PRECHARGE.
    [[noreturn]] void wrong(unsigned bank, const std::string& what) const {
        throw std::runtime_error("memory bank " + std::to_string(bank) + ", cycle " + std::to_string(cycles) + ": " + what);
    }

    void check_since(unsigned bank, const char* what, int64_t since, int64_t least) const {
        if (int64_t(cycles) - since < least)
            wrong(bank, std::string(what) + " after " + std::to_string(int64_t(cycles) - since) + " cycles, not " + std::to_string(least));
    }

    Bank& opened(unsigned number, const char* command) {
        if (!banks[number].open) wrong(number, std::string(command) + " while it is closed");
        return banks[number];
    }

    uint8_t* page(unsigned number) {
        const uint64_t bytes = uint64_t(DRAM_COLUMNS) * 4, at = (uint64_t(banks[number].row) * DRAM_BANKS + number) * bytes;
        if (at + bytes > memory_size) wrong(number, "row " + std::to_string(banks[number].row) + " is not in this memory");
        return memory.get() + at;
    }

    void drive_banks() { DRAM(read_w) = found[0], DRAM(read_m) = found[1], DRAM(read_v) = found[2]; }

    void sample_banks() {
        const unsigned reads_from[] = {DRAM(read_bank_w), DRAM(read_bank_m), DRAM(read_bank_v)};
        const unsigned writes_to[] = {DRAM(write_bank_w), DRAM(write_bank_m), DRAM(write_bank_v)};
        const uint32_t words[] = {DRAM(write_w), DRAM(write_m), DRAM(write_v)};
        for (int operand = 0; operand < 3; ++operand) {
            if (DRAM(read)) {
                const Bank& bank = opened(reads_from[operand], "READ");
                check_since(reads_from[operand], "READ too soon after ACTIVATE,", bank.activated, DRAM_RCD);
                found[operand] = bank.words[DRAM(read_column)];
            }
            if (DRAM(write)) {
                Bank& bank = opened(writes_to[operand], "WRITE");
                check_since(writes_to[operand], "WRITE too soon after ACTIVATE,", bank.activated, DRAM_RCD);
                bank.words[DRAM(write_column)] = words[operand];
                bank.written = cycles;
            }
        }
        const unsigned number = DRAM(bank);
        if (DRAM(activate)) {
            Bank& bank = banks[number];
            if (bank.open) wrong(number, "ACTIVATE while a row is open");
            check_since(number, "ACTIVATE too soon after PRECHARGE,", bank.precharged, DRAM_RP);
            bank.open = true;
            bank.row = DRAM(row);
            bank.activated = cycles;
            std::memcpy(bank.words.data(), page(number), sizeof bank.words);
        }
        if (DRAM(precharge)) {
            Bank& bank = opened(number, "PRECHARGE");
            check_since(number, "PRECHARGE too soon after ACTIVATE,", bank.activated, DRAM_RAS);
            check_since(number, "PRECHARGE too soon after WRITE,", bank.written, DRAM_WR);
            std::memcpy(page(number), bank.words.data(), sizeof bank.words);
            bank.open = false;
            bank.precharged = cycles;
        }
    }

    void check_banks_closed(const char* what) const {
        for (unsigned number = 0; number < DRAM_BANKS; ++number)
            if (banks[number].open) wrong(number, std::string(what) + " over the bus while a row is open");
    }
#else
    void drive_banks() {}
    void sample_banks() {}
    void check_banks_closed(const char*) const {}
#endif

    void check_held(const char* channel, bool held, bool valid, bool same) const {
        if (held && !valid) violation(std::string(channel) + " valid was withdrawn before it was taken");
        if (held && !same) violation(std::string(channel) + " changed before it was taken");
    }

    void check_burst(const char* channel, const Address& a) const {
        const std::string where = std::string(channel) + " at " + hex(a.address) + ": ";
        const uint64_t last = a.address + uint64_t(a.length + 1) * BUS_BYTES - 1;
        if (a.burst != kIncrementing) violation(where + "burst type is " + std::to_string(a.burst) + ", not INCR");
        if (a.size != log2_of(BUS_BYTES)) violation(where + "size is " + std::to_string(a.size) + ", not the bus width");
        if (a.address % BUS_BYTES) violation(where + "the address is not aligned to the bus");
        if (a.address >> 12 != last >> 12) violation(where + "the burst crosses a 4 KiB boundary");
    }

    const uint64_t latency, stall_below;
    uint64_t random;
    std::unique_ptr<VerilatedContext> context;
    Vtop top;
#if defined(WAVES)
    std::unique_ptr<VerilatedFstC> tracer;
#endif

    std::deque<Read> reads;
    std::deque<Write> writes;
    std::deque<Data> early;
    std::deque<Response> responses;
    bool held_ar = false, held_aw = false, held_w = false, r_taken = false, b_taken = false;
    Address last_ar{}, last_aw{};
    Data last_w{};
#if defined(DRAM_BANKS)
    std::array<Bank, DRAM_BANKS> banks{};
    std::array<uint32_t, 3> found{};
#endif
    struct {
        bool aw, w, b, ar, r;
        uint8_t response;
        uint32_t data;
    } fired{};
};

namespace {

// Exceptions must not cross into Python: they become -1 and a message.
template <typename Body> int guarded(Simulation* simulation, Body body) {
    try {
        return body();
    } catch (const std::exception& error) {
        simulation->failure = error.what();
        return -1;
    }
}

}  // namespace

extern "C" {

Simulation* simulation_create(uint64_t memory_size, uint64_t latency, double stall, uint64_t seed, const char* waves) {
    try {
        return new Simulation(memory_size, latency, stall, seed, waves);
    } catch (const std::exception&) {
        return nullptr;
    }
}
void simulation_destroy(Simulation* simulation) { delete simulation; }
uint8_t* simulation_memory(Simulation* simulation) { return simulation->memory.get(); }
const char* simulation_failure(Simulation* simulation) { return simulation->failure.c_str(); }
uint64_t simulation_cycles(Simulation* simulation) { return simulation->cycles; }
uint64_t simulation_read_beats(Simulation* simulation) { return simulation->read_beats; }
uint64_t simulation_write_beats(Simulation* simulation) { return simulation->write_beats; }
void simulation_answer(Simulation* simulation, uint64_t address, int response) {
    if (response == kOkay) simulation->answers.erase(address);
    else simulation->answers[address] = uint8_t(response);
}

int simulation_reset(Simulation* simulation) {
    return guarded(simulation, [&] { return simulation->reset(), 0; });
}
// The AXI4-Lite response, or -1.
int simulation_register_read(Simulation* simulation, uint32_t address, uint32_t* data) {
    return guarded(simulation, [&] { return int(simulation->register_read(address, data)); });
}
int simulation_register_write(Simulation* simulation, uint32_t address, uint32_t data) {
    return guarded(simulation, [&] { return int(simulation->register_write(address, data)); });
}
// 1 if the interrupt is up afterwards, 0 if it is down, -1 on a failure.
int simulation_run(Simulation* simulation, uint64_t cycles, int until_interrupt) {
    return guarded(simulation, [&] { return int(simulation->run(cycles, until_interrupt != 0)); });
}

}  // extern "C"
