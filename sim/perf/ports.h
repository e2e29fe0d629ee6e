// Bit fields of Verilator's ports, which are integers up to 64 bits and arrays of 32-bit words above.
#pragma once
#include <cstddef>
#include <cstdint>

#include "verilated.h"

template <typename T>
uint64_t get(const T& port, unsigned at, unsigned bits) {
    return (uint64_t(port) >> at) & ((1ull << bits) - 1);
}
template <std::size_t N>
uint64_t get(const VlWide<N>& port, unsigned at, unsigned bits) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bits; ++i) value |= uint64_t((port[(at + i) / 32] >> ((at + i) % 32)) & 1) << i;
    return value;
}
template <typename T>
void set(T& port, unsigned at, unsigned bits, uint64_t value) {
    const uint64_t mask = ((1ull << bits) - 1) << at;
    port = T((port & ~mask) | (value << at));
}
template <std::size_t N>
void set(VlWide<N>& port, unsigned at, unsigned bits, uint64_t value) {
    for (unsigned i = 0; i < bits; ++i) {
        const unsigned place = at + i;
        port[place / 32] = (port[place / 32] & ~(1u << (place % 32))) | (uint32_t((value >> i) & 1) << (place % 32));
    }
}
