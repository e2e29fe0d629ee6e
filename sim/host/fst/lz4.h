// The part of LZ4 that Verilator's FST writer needs, so that waveforms need no library: one block, compressed greedily.
//
// A block is a sequence of (token, literals, offset, match); the format demands that the last five bytes are literals and
// that no match begins within the last twelve.

#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

inline int LZ4_compress_default(const char *source, char *target, int size, int capacity) {
    constexpr int kMinMatch = 4, kLastLiterals = 5, kMatchMargin = 12, kMaxOffset = 65535, kHashBits = 14;
    if (capacity < LZ4_compressBound(size)) return 0;
    const auto *in = reinterpret_cast<const uint8_t *>(source);
    auto *out = reinterpret_cast<uint8_t *>(target);
    std::vector<int> seen(1 << kHashBits, -1);

    const auto put_length = [&out](int rest) {
        for (; rest >= 255; rest -= 255) *out++ = 255;
        *out++ = static_cast<uint8_t>(rest);
    };
    const auto put_literals = [&](int from, int to, int match_code) {
        const int literals = to - from;
        *out++ = static_cast<uint8_t>((literals < 15 ? literals : 15) << 4 | (match_code < 15 ? match_code : 15));
        if (literals >= 15) put_length(literals - 15);
        std::memcpy(out, in + from, literals);
        out += literals;
    };

    int done = 0;
    for (int at = 0; at < size - kMatchMargin; ++at) {
        uint32_t word;
        std::memcpy(&word, in + at, sizeof word);
        int &candidate = seen[word * 2654435761u >> (32 - kHashBits)];
        const int match = candidate;
        candidate = at;
        if (match < 0 || at - match > kMaxOffset || std::memcmp(in + match, in + at, kMinMatch) != 0) continue;
        int length = kMinMatch;
        while (at + length < size - kLastLiterals && in[match + length] == in[at + length]) ++length;
        put_literals(done, at, length - kMinMatch);
        *out++ = static_cast<uint8_t>(at - match);
        *out++ = static_cast<uint8_t>((at - match) >> 8);
        if (length - kMinMatch >= 15) put_length(length - kMinMatch - 15);
        done = at + length;
        at = done - 1;
    }
    put_literals(done, size, 0);
    return static_cast<int>(out - reinterpret_cast<uint8_t *>(target));
}
