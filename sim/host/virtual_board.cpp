// A board's design and the host's end of its line in one shared library; virtual_board.py drives it.
//
// The build defines CLOCK_HZ and BAUD for a line of two wires; without them the line brings bytes. With SDRAM_*_BITS memory is a chip beside
// the design.

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

namespace {

#if defined(BAUD)
constexpr double kBitCycles = double(CLOCK_HZ) / BAUD;
constexpr uint64_t kRest = uint64_t(30 * kBitCycles);
#else
constexpr uint64_t kRest = 64;
#endif

#if defined(SDRAM_BANK_BITS)

// An SDR SDRAM behind the registers in the pads, which does what it is told; tests/boards see whether it is told in time. Nothing in it is 0
// at first, a bank without an open row keeps nothing, and while nobody drives the wires they are read as anything.
class Sdram {
public:
    explicit Sdram(uint64_t seed) : wires(seed), words(size_t(1) << (SDRAM_BANK_BITS + SDRAM_ROW_BITS + SDRAM_COLUMN_BITS)) {
        for (auto& word : words) word = uint16_t(wires());
    }

    // What the pads' registers take at the end of a cycle; returns what they have read by then.
    uint16_t edge(unsigned command, unsigned bank, unsigned address, unsigned mask, uint16_t data) {
        uint16_t* const word = open[bank] ? &words[((size_t(row[bank]) << SDRAM_BANK_BITS | bank) << SDRAM_COLUMN_BITS) + (address & kColumn)] : nullptr;
        const uint16_t result = due[0];
        due[0] = due[1], due[1] = due[2], due[2] = uint16_t(wires());
        switch (command) {
            case kActivate: open[bank] = true, row[bank] = address; break;
            case kPrecharge:
                for (unsigned each = 0; each < 1u << SDRAM_BANK_BITS; ++each) open[each] &= !(address >> 10 & 1) && each != bank;
                break;
            case kMode: latency = address >> 4 & 7; break;
            case kRead:
                if (word && (latency == 2 || latency == 3)) due[latency - 1] = *word;
                break;
            case kWrite:
                if (word) {
                    const uint16_t kept = (mask & 1 ? 0x00FF : 0) | (mask & 2 ? 0xFF00 : 0);
                    *word = (*word & kept) | (data & ~kept);
                }
                break;
        }
        return result;
    }

private:
    enum { kActivate = 1, kRead = 2, kPrecharge = 5, kWrite = 6, kMode = 7 };
    static constexpr unsigned kColumn = (1u << SDRAM_COLUMN_BITS) - 1;

    std::minstd_rand wires;
    std::vector<uint16_t> words;
    bool open[1u << SDRAM_BANK_BITS] = {};
    unsigned row[1u << SDRAM_BANK_BITS] = {};
    unsigned latency = 0;
    uint16_t due[3] = {};
};

#endif

}  // namespace

class Board {
public:
    explicit Board(uint64_t seed)
        : context(prepare(seed)),
#if defined(SDRAM_BANK_BITS)
          sdram(seed),
#endif
          top(context.get(), "top") {
        top.clk = 0;
        top.rst = 1;
        quiet();
        top.eval();
        for (int i = 0; i < 4; ++i) edge();
        top.rst = 0;
    }
    ~Board() { top.final(); }

    // Runs `count` cycles, or fewer: until the line has rested for some cycles behind what it gave, or `room` is full.
    void run(uint64_t count, const uint8_t* input, uint64_t size, uint8_t* output, uint64_t room, uint64_t* taken, uint64_t* given) {
        *taken = *given = 0;
        uint64_t rested = 0;
        for (uint64_t i = 0; i < count && *given < room && !(*given && *taken == size && rested > kRest); ++i, ++rested, ++cycles) {
            const bool takes = drive(input + *taken, *taken < size);
            top.eval();
            const int byte = sample();
            edge();
            if (takes) ++*taken, rested = 0;
            if (byte >= 0) output[(*given)++] = uint8_t(byte), rested = 0;
        }
    }

    bool lamp(bool error) const { return error ? top.error : top.busy; }

    uint64_t cycles = 0;

private:
    // Registers without a reset value start at random, so that nothing can rely on zero.
    static std::unique_ptr<VerilatedContext> prepare(uint64_t seed) {
        auto context = std::make_unique<VerilatedContext>();
        context->randReset(2);
        context->randSeed(static_cast<int>(seed % 2147483647 + 1));
        return context;
    }

    void edge() {
#if defined(SDRAM_BANK_BITS)
        const uint16_t read = sdram.edge(top.sdram___05Fcommand, top.sdram___05Fbank, top.sdram___05Faddress, top.sdram___05Fmask, top.sdram___05Fdata_out);
        top.clk = 1;
        top.eval();
        top.sdram___05Fdata_in = read;
#else
        top.clk = 1;
        top.eval();
#endif
        top.clk = 0;
        top.eval();
    }

#if defined(BAUD)
    void quiet() { top.rx = 1; }

    // Whether the byte begins to go over the wire in this cycle.
    bool drive(const uint8_t* byte, bool any) {
        bool begins = false;
        sent += 1;
        if (sent >= kBitCycles) {
            sent -= kBitCycles;
            bits >>= 1;
            if (bits <= 1) {
                begins = any;
                bits = any ? 0x600u | unsigned(*byte) << 1 : 1;
                if (!any) sent = kBitCycles;
            }
        }
        top.rx = bits & 1;
        return begins;
    }

    // The byte whose last bit is read in this cycle, or -1.
    int sample() {
        if (place < 0) {
            if (top.tx) return -1;
            place = 0, heard = 0, until = kBitCycles / 2;
        }
        if ((until -= 1) > 0) return -1;
        until += kBitCycles;
        heard |= unsigned(top.tx) << place++;
        if (place < 10) return -1;
        place = -1;
        return (heard & 0x201) == 0x200 ? int(heard >> 1 & 0xFF) : -1;
    }

    unsigned bits = 1, heard = 0;
    double sent = kBitCycles, until = 0;
    int place = -1;
#else
    void quiet() { top.received = top.broken = 0, top.line___05Fready = 1; }

    bool drive(const uint8_t* byte, bool any) {
        top.received = any;
        if (any) top.data = *byte;
        return any;
    }

    int sample() { return top.line___05Fvalid ? int(top.line___05Fpayload) : -1; }
#endif

    std::unique_ptr<VerilatedContext> context;
#if defined(SDRAM_BANK_BITS)
    Sdram sdram;
#endif
    Vtop top;
};

extern "C" {

Board* board_create(uint64_t seed) { return new Board(seed); }
void board_destroy(Board* board) { delete board; }
uint64_t board_cycles(Board* board) { return board->cycles; }
int board_lamp(Board* board, int error) { return board->lamp(error != 0); }
void board_run(Board* board, uint64_t count, const uint8_t* input, uint64_t size, uint8_t* output, uint64_t room, uint64_t* taken,
               uint64_t* given) {
    board->run(count, input, size, output, room, taken, given);
}

}  // extern "C"
