/* SPDX-License-Identifier: Apache-2.0 */
/* The driver that nibblecore.h describes. */

#include "nibblecore.h"

#if !defined(LTOAQ_ID_VALUE) && !defined(CAMBRICONQ_ID_VALUE)
#error "nibblecore_config.h includes no header of a machine; make verilog writes them"
#endif

/* Bits of a register, and of a word of memory that has fields. */
#define FIELD(word, name) (((word)&name##_MASK) >> name##_SHIFT)
#define PUT(words, name, value) ((words)[name##_WORD] |= ((uint32_t)(value) << name##_SHIFT) & name##_MASK)

static uint32_t get(const struct nb_device *device, uint32_t offset) {
    return device->bus.read_register(device->bus.context, offset);
}

static void set(const struct nb_device *device, uint32_t offset, uint32_t value) {
    device->bus.write_register(device->bus.context, offset, value);
}

static uint32_t read_word(const struct nb_device *device, uint32_t address) {
    return device->bus.read_memory(device->bus.context, address);
}

static void write_word(const struct nb_device *device, uint32_t address, uint32_t value) {
    device->bus.write_memory(device->bus.context, address, value);
}

static uint32_t mapped_read_register(void *context, uint32_t offset) {
    return ((const struct nb_mapping *)context)->registers[offset / 4u];
}

static void mapped_write_register(void *context, uint32_t offset, uint32_t value) {
    ((const struct nb_mapping *)context)->registers[offset / 4u] = value;
}

static uint32_t mapped_read_memory(void *context, uint32_t address) {
    const struct nb_mapping *const mapping = (const struct nb_mapping *)context;
    return mapping->memory[(address - mapping->memory_address) / 4u];
}

static void mapped_write_memory(void *context, uint32_t address, uint32_t value) {
    const struct nb_mapping *const mapping = (const struct nb_mapping *)context;
    mapping->memory[(address - mapping->memory_address) / 4u] = value;
}

struct nb_bus nb_mapped(struct nb_mapping *mapping, uint32_t looks) {
    const struct nb_bus bus = {
        mapped_read_register, mapped_write_register, mapped_read_memory, mapped_write_memory, 0, mapping, looks,
    };
    return bus;
}

void nb_write_words(const struct nb_device *device, uint32_t address, const uint32_t *words, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) write_word(device, address + 4u * i, words[i]);
}

void nb_read_words(const struct nb_device *device, uint32_t address, uint32_t *words, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) words[i] = read_word(device, address + 4u * i);
}

static void clear_words(const struct nb_device *device, uint32_t address, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) write_word(device, address + 4u * i, 0);
}

/* Until the bits of `mask` in a register are `wanted`. */
static enum nb_status wait_for(const struct nb_device *device, uint32_t offset, uint32_t mask, uint32_t wanted) {
    for (uint32_t look = 0; look < device->bus.looks; ++look) {
        if ((get(device, offset) & mask) == wanted) return NB_OK;
        if (device->bus.pause) device->bus.pause(device->bus.context);
    }
    return NB_TIMEOUT;
}

/* Offsets of ID, CONFIG0 and CONFIG1 are the same on both machines. */
static enum nb_status identify(struct nb_device *device, const struct nb_bus *bus, uint32_t id, uint32_t config0, uint32_t config1) {
    device->bus = *bus;
    device->code = 0;
    device->place = 0;
    if (get(device, 0x0u) != id) return NB_WRONG_MACHINE;
    device->config[0] = get(device, 0x4u);
    device->config[1] = get(device, 0x8u);
    return device->config[0] == config0 && device->config[1] == config1 ? NB_OK : NB_WRONG_CONFIG;
}

#ifdef LTOAQ_ID_VALUE

#define LTOAQ_CONFIG(device, number, name) FIELD((device)->config[number], LTOAQ_CONFIG##number##_##name)

static uint32_t ltoaq_beat(const struct nb_device *device) { return LTOAQ_CONFIG(device, 0, BUS_BYTES); }

/* Edge of a block: its 4-bit codes fill a beat. */
static uint32_t ltoaq_block(const struct nb_device *device) { return ltoaq_beat(device) == 32u ? 8u : 4u; }

enum nb_status nb_ltoaq_open(struct nb_device *device, const struct nb_bus *bus, uint32_t config0, uint32_t config1,
                             uint32_t window_base, uint32_t window_last) {
    enum nb_status status = identify(device, bus, LTOAQ_ID_VALUE, config0, config1);
    if (status == NB_OK) status = nb_ltoaq_abandon(device);
    if (status != NB_OK) return status;
    set(device, LTOAQ_CONTROL_OFFSET, LTOAQ_CONTROL_CLEAR_COUNTERS_MASK);
    set(device, LTOAQ_IRQ_ENABLE_OFFSET, 0);
    set(device, LTOAQ_WINDOW_BASE_OFFSET, window_base);
    set(device, LTOAQ_WINDOW_LAST_OFFSET, window_last);
    return NB_OK;
}

static void ltoaq_clear(const struct nb_device *device) {
    set(device, LTOAQ_CONTROL_OFFSET, LTOAQ_CONTROL_CLEAR_ERROR_MASK);
    set(device, LTOAQ_IRQ_STATUS_OFFSET, LTOAQ_IRQ_STATUS_DONE_MASK | LTOAQ_IRQ_STATUS_ERROR_MASK);
}

enum nb_status nb_ltoaq_abandon(struct nb_device *device) {
    set(device, LTOAQ_CONTROL_OFFSET, LTOAQ_CONTROL_SOFT_RESET_MASK);
    const enum nb_status status = wait_for(device, LTOAQ_STATUS_OFFSET, LTOAQ_STATUS_BUSY_MASK, 0);
    if (status == NB_OK) ltoaq_clear(device);
    return status;
}

#define PUT_TENSOR(words, name, tensor)                                                  \
    do {                                                                                 \
        PUT(words, LTOAQ_DESCRIPTOR_##name##_EIGHT_BIT, (tensor)->bits == 8u);           \
        PUT(words, LTOAQ_DESCRIPTOR_##name##_SIGNED, (tensor)->is_signed);               \
        PUT(words, LTOAQ_DESCRIPTOR_##name##_K, (tensor)->k);                            \
        PUT(words, LTOAQ_DESCRIPTOR_##name##_THRESHOLD, (tensor)->threshold);            \
        PUT(words, LTOAQ_DESCRIPTOR_##name##_HEADER, (tensor)->header);                  \
        PUT(words, LTOAQ_DESCRIPTOR_##name##_CODES, (tensor)->codes);                    \
        PUT(words, LTOAQ_DESCRIPTOR_##name##_RUNS, (tensor)->runs);                      \
        PUT(words, LTOAQ_DESCRIPTOR_##name##_RUN_STRIDE, (tensor)->run_stride);          \
    } while (0)

static uint32_t divided_up(uint32_t value, uint32_t by) { return (value + by - 1u) / by; }

/* As many panels as there are and fit, as many as the field holds. */
static uint32_t ltoaq_group(uint32_t tiles, uint32_t fitting) {
    const uint32_t most = fitting < 255u ? fitting : 255u;
    return tiles < most ? tiles : most;
}

enum nb_status nb_ltoaq_describe(const struct nb_device *device, const struct nb_ltoaq_gemm *gemm, bool interrupt,
                                 uint32_t words[LTOAQ_DESCRIPTOR_WORDS]) {
    const struct nb_ltoaq_tensor *const a = &gemm->a, *const w = &gemm->w, *const out = &gemm->out;
    if (gemm->m - 1u > 65534u || gemm->n - 1u > 65534u || gemm->k - 1u > 65534u) return NB_BAD_ARGUMENT;
    if (a->bits != w->bits || (a->bits != 4u && a->bits != 8u)) return NB_BAD_ARGUMENT;
    if (gemm->quantized && out->bits != 4u && out->bits != 8u) return NB_BAD_ARGUMENT;

    /* All of K if a panel of it fits half of every bank, and as many panels as fit; else what fits of K. */
    const uint32_t tile = LTOAQ_CONFIG(device, 0, TILE), half = LTOAQ_CONFIG(device, 1, BANK_WORDS) / 2u;
    const uint32_t along_k = tile / ltoaq_block(device) * a->bits / 4u;
    const uint32_t a_words = tile / LTOAQ_CONFIG(device, 0, OUTPUT_ROWS) * along_k;
    const uint32_t w_words = tile / LTOAQ_CONFIG(device, 0, OUTPUT_COLS) * along_k;
    const uint32_t larger = a_words > w_words ? a_words : w_words;
    uint32_t k_tiles = divided_up(gemm->k, tile), a_group = 1, w_group = 1;
    if (k_tiles * larger > half) {
        k_tiles = half / larger;
    } else {
        a_group = ltoaq_group(divided_up(gemm->m, tile), half / (k_tiles * a_words));
        w_group = ltoaq_group(divided_up(gemm->n, tile), half / (k_tiles * w_words));
    }

    for (uint32_t i = 0; i < LTOAQ_DESCRIPTOR_WORDS; ++i) words[i] = 0;
    PUT(words, LTOAQ_DESCRIPTOR_OPCODE, LTOAQ_OPCODE_GEMM);
    PUT(words, LTOAQ_DESCRIPTOR_INTERRUPT, interrupt);
    PUT(words, LTOAQ_DESCRIPTOR_M, gemm->m);
    PUT(words, LTOAQ_DESCRIPTOR_N, gemm->n);
    PUT(words, LTOAQ_DESCRIPTOR_K, gemm->k);
    PUT(words, LTOAQ_DESCRIPTOR_A_TRANSPOSED, gemm->a_transposed);
    PUT(words, LTOAQ_DESCRIPTOR_W_TRANSPOSED, gemm->w_transposed);
    PUT(words, LTOAQ_DESCRIPTOR_A_GROUP, a_group);
    PUT(words, LTOAQ_DESCRIPTOR_W_GROUP, w_group);
    PUT(words, LTOAQ_DESCRIPTOR_K_TILES, k_tiles);
    PUT_TENSOR(words, A, a);
    PUT_TENSOR(words, W, w);
    if (gemm->quantized) {
        PUT_TENSOR(words, OUT, out);
        PUT(words, LTOAQ_DESCRIPTOR_RELU, gemm->relu);
        PUT(words, LTOAQ_DESCRIPTOR_ALPHA, gemm->alpha);
        PUT(words, LTOAQ_DESCRIPTOR_MULTIPLIER, gemm->multiplier);
        PUT(words, LTOAQ_DESCRIPTOR_SHIFT, gemm->shift);
    } else {
        PUT(words, LTOAQ_DESCRIPTOR_RAW_OUTPUT, 1);
        PUT(words, LTOAQ_DESCRIPTOR_RAW0_ADDRESS, gemm->raw_address);
        PUT(words, LTOAQ_DESCRIPTOR_RAW0_PITCH, gemm->raw_pitch);
    }
    return NB_OK;
}

enum nb_status nb_ltoaq_push(const struct nb_device *device, uint32_t descriptor) {
    if (descriptor % LTOAQ_HEADER_BYTES) return NB_BAD_ARGUMENT;
    const uint32_t level = FIELD(get(device, LTOAQ_STATUS_OFFSET), LTOAQ_STATUS_QUEUE_LEVEL);
    if (level >= 1u << LTOAQ_CONFIG(device, 1, QUEUE_DEPTH)) return NB_BUSY;
    NB_BARRIER();
    set(device, LTOAQ_PUSH_OFFSET, descriptor);
    return NB_OK;
}

enum nb_status nb_ltoaq_wait(struct nb_device *device) {
    const enum nb_status status = wait_for(device, LTOAQ_STATUS_OFFSET, LTOAQ_STATUS_BUSY_MASK, 0);
    if (status != NB_OK) return status;
    NB_BARRIER();
    if (!(get(device, LTOAQ_STATUS_OFFSET) & LTOAQ_STATUS_ERROR_MASK)) return NB_OK;
    const uint32_t error = get(device, LTOAQ_ERROR_OFFSET);
    device->code = FIELD(error, LTOAQ_ERROR_CODE);
    device->place = FIELD(error, LTOAQ_ERROR_SEQUENCE);
    ltoaq_clear(device);
    return NB_MACHINE_ERROR;
}

enum nb_status nb_ltoaq_multiply(struct nb_device *device, const struct nb_ltoaq_gemm *gemm, uint32_t descriptor, bool *overflow) {
    uint32_t words[LTOAQ_DESCRIPTOR_WORDS];
    enum nb_status status = nb_ltoaq_describe(device, gemm, false, words);
    if (status == NB_OK && descriptor % LTOAQ_HEADER_BYTES) status = NB_BAD_ARGUMENT;
    if (status != NB_OK) return status;
    nb_write_words(device, descriptor, words, LTOAQ_DESCRIPTOR_WORDS);
    status = nb_ltoaq_push(device, descriptor);
    if (status == NB_OK) status = nb_ltoaq_wait(device);
    if (status == NB_OK && overflow) {
        *overflow = (get(device, LTOAQ_STATUS_OFFSET) & LTOAQ_STATUS_OVERFLOW_MASK) != 0;
        if (*overflow) set(device, LTOAQ_CONTROL_OFFSET, LTOAQ_CONTROL_CLEAR_ERROR_MASK);
    }
    return status;
}

void nb_ltoaq_enable_interrupts(const struct nb_device *device, uint32_t mask) { set(device, LTOAQ_IRQ_ENABLE_OFFSET, mask); }

uint32_t nb_ltoaq_interrupt(const struct nb_device *device) {
    const uint32_t pending = get(device, LTOAQ_IRQ_STATUS_OFFSET);
    set(device, LTOAQ_IRQ_STATUS_OFFSET, pending);
    return pending;
}

void nb_ltoaq_counters(const struct nb_device *device, struct nb_ltoaq_counters *counters) {
    counters->done = get(device, LTOAQ_DONE_OFFSET);
    counters->abandoned = get(device, LTOAQ_ABANDONED_OFFSET);
    counters->cycles = get(device, LTOAQ_CYCLES_OFFSET);
    counters->array_cycles = get(device, LTOAQ_ARRAY_CYCLES_OFFSET);
    counters->load_stalls = get(device, LTOAQ_LOAD_STALLS_OFFSET);
    counters->output_stalls = get(device, LTOAQ_OUTPUT_STALLS_OFFSET);
}

/* The self test: 4 × 4 results over one tile of K, signed codes of 4 bits, and in each operand one outlier. */

#define TEST_EDGE 4u
#define TEST_THRESHOLD 5
#define TEST_SHIFT 1u

/* The outlier is element `seed` of the tile, in the order of the beats: its code has sign and magnitude, 1 and 3. */
#define TEST_OUTLIER_CODE 0xBu
#define TEST_OUTLIER (-(TEST_THRESHOLD + (3 << TEST_SHIFT)))

static int32_t ltoaq_test_code(uint32_t seed, uint32_t row, uint32_t col) {
    return (int32_t)((row * 5u + col * 3u + seed * 7u) % 15u) - 7;
}

/* Where element `lane` of a tile, in the order of the beats, stands. */
static void ltoaq_test_place(const struct nb_device *device, uint32_t lane, uint32_t *row, uint32_t *col) {
    const uint32_t block = ltoaq_block(device), across = LTOAQ_CONFIG(device, 0, TILE) / block;
    const uint32_t number = lane / (block * block), inner = lane % (block * block);
    *row = number / across * block + inner / block;
    *col = number % across * block + inner % block;
}

static int32_t ltoaq_test_value(const struct nb_device *device, uint32_t seed, uint32_t row, uint32_t col) {
    uint32_t outlier_row, outlier_col;
    ltoaq_test_place(device, seed, &outlier_row, &outlier_col);
    if (row == outlier_row && col == outlier_col) return TEST_OUTLIER;
    return ltoaq_test_code(seed, row, col);
}

static void ltoaq_test_operand(const struct nb_device *device, uint32_t seed, const struct nb_ltoaq_tensor *tensor) {
    const uint32_t tile = LTOAQ_CONFIG(device, 0, TILE), run_bits = LTOAQ_CONFIG(device, 1, RUN_BITS);
    clear_words(device, tensor->header, LTOAQ_HEADER_BYTES / 4u);
    write_word(device, tensor->header, 1); /* beats of the longest segment */
    /* The segment: how many codes, in two slots; the number of normal elements before the outlier. */
    const uint64_t segment = 1u | (uint64_t)seed << (2u * run_bits);
    clear_words(device, tensor->runs, ltoaq_beat(device) / 4u);
    write_word(device, tensor->runs, (uint32_t)segment);
    write_word(device, tensor->runs + 4u, (uint32_t)(segment >> 32));
    for (uint32_t word = 0; word < tile * tile / 8u; ++word) {
        uint32_t codes = 0;
        for (uint32_t i = 0; i < 8u; ++i) {
            const uint32_t lane = word * 8u + i;
            uint32_t row, col, code;
            ltoaq_test_place(device, lane, &row, &col);
            code = row < TEST_EDGE ? (uint32_t)ltoaq_test_code(seed, row, col) & 15u : 0u;
            if (lane == seed) code = TEST_OUTLIER_CODE;
            codes |= code << (4u * i);
        }
        write_word(device, tensor->codes + 4u * word, codes);
    }
}

static uint32_t ltoaq_test_operand_bytes(const struct nb_device *device) {
    const uint32_t tile = LTOAQ_CONFIG(device, 0, TILE);
    return LTOAQ_HEADER_BYTES + 32u + tile * tile / 2u;
}

uint32_t nb_ltoaq_self_test_bytes(const struct nb_device *device) {
    return LTOAQ_DESCRIPTOR_BYTES + TEST_EDGE * 32u + 2u * ltoaq_test_operand_bytes(device);
}

enum nb_status nb_ltoaq_self_test(struct nb_device *device, uint32_t address) {
    const uint32_t tile = LTOAQ_CONFIG(device, 0, TILE), result = address + LTOAQ_DESCRIPTOR_BYTES;
    const uint32_t bytes = ltoaq_test_operand_bytes(device), operands = result + TEST_EDGE * 32u;
    struct nb_ltoaq_gemm gemm = {
        .m = TEST_EDGE, .n = TEST_EDGE, .k = tile, .raw_address = result, .raw_pitch = 32u,
    };
    if (address % 64u) return NB_BAD_ARGUMENT;
    for (uint32_t seed = 0; seed < 2u; ++seed) {
        const uint32_t at = operands + seed * bytes;
        const struct nb_ltoaq_tensor tensor = {
            .header = at, .runs = at + LTOAQ_HEADER_BYTES, .codes = at + LTOAQ_HEADER_BYTES + 32u, .run_stride = 1,
            .bits = 4, .is_signed = true, .k = TEST_SHIFT, .threshold = TEST_THRESHOLD,
        };
        ltoaq_test_operand(device, seed, &tensor);
        if (seed) gemm.w = tensor;
        else gemm.a = tensor;
    }
    clear_words(device, result, TEST_EDGE * 8u);
    const enum nb_status status = nb_ltoaq_multiply(device, &gemm, address, 0);
    if (status != NB_OK) return status;
    for (uint32_t i = 0; i < TEST_EDGE * TEST_EDGE; ++i) {
        const uint32_t row = i / TEST_EDGE, col = i % TEST_EDGE;
        int32_t expected = 0;
        for (uint32_t k = 0; k < tile; ++k) {
            expected += ltoaq_test_value(device, 0, row, k) * ltoaq_test_value(device, 1, col, k);
        }
        if (read_word(device, result + row * 32u + col * 4u) != (uint32_t)expected) {
            device->place = i;
            return NB_WRONG_RESULT;
        }
    }
    return NB_OK;
}

const char *nb_ltoaq_cause(uint32_t code) {
    switch (code) {
#define CASE(name, cause) \
    case LTOAQ_ERROR_##name: return cause;
        LTOAQ_ERRORS(CASE)
#undef CASE
    default: return "an error code that this driver does not know";
    }
}

#endif

#ifdef CAMBRICONQ_ID_VALUE

#define CAMBRICONQ_CONFIG(device, number, name) FIELD((device)->config[number], CAMBRICONQ_CONFIG##number##_##name)

static enum nb_status cambriconq_settled(const struct nb_device *device) {
    return wait_for(device, CAMBRICONQ_STATUS_OFFSET, CAMBRICONQ_STATUS_BUSY_MASK, 0);
}

enum nb_status nb_cambriconq_open(struct nb_device *device, const struct nb_bus *bus, uint32_t config0, uint32_t config1,
                                  uint32_t memory_last) {
    enum nb_status status = identify(device, bus, CAMBRICONQ_ID_VALUE, config0, config1);
    if (status == NB_OK) status = nb_cambriconq_stop(device);
    if (status != NB_OK) return status;
    set(device, CAMBRICONQ_CONTROL_OFFSET, CAMBRICONQ_CONTROL_CLEAR_FLAGS_MASK | CAMBRICONQ_CONTROL_CLEAR_COUNTERS_MASK);
    set(device, CAMBRICONQ_IRQ_ENABLE_OFFSET, 0);
    set(device, CAMBRICONQ_MEMORY_LAST_OFFSET, memory_last);
    return NB_OK;
}

enum nb_status nb_cambriconq_start(struct nb_device *device, uint32_t program) {
    if (program % CAMBRICONQ_INSTRUCTION_BYTES) return NB_BAD_ARGUMENT;
    if (get(device, CAMBRICONQ_STATUS_OFFSET) & CAMBRICONQ_STATUS_BUSY_MASK) return NB_BUSY;
    set(device, CAMBRICONQ_IRQ_STATUS_OFFSET, CAMBRICONQ_IRQ_STATUS_DONE_MASK);
    NB_BARRIER();
    set(device, CAMBRICONQ_START_OFFSET, program);
    return NB_OK;
}

enum nb_status nb_cambriconq_wait(struct nb_device *device) {
    const enum nb_status status = cambriconq_settled(device);
    if (status != NB_OK) return status;
    NB_BARRIER();
    set(device, CAMBRICONQ_IRQ_STATUS_OFFSET, CAMBRICONQ_IRQ_STATUS_DONE_MASK);
    const uint32_t code = FIELD(get(device, CAMBRICONQ_ERROR_OFFSET), CAMBRICONQ_ERROR_CODE);
    if (code == CAMBRICONQ_ERROR_NONE) return NB_OK;
    device->code = code;
    device->place = get(device, CAMBRICONQ_INDEX_OFFSET);
    return NB_MACHINE_ERROR;
}

enum nb_status nb_cambriconq_run(struct nb_device *device, uint32_t program) {
    const enum nb_status status = nb_cambriconq_start(device, program);
    return status == NB_OK ? nb_cambriconq_wait(device) : status;
}

enum nb_status nb_cambriconq_stop(struct nb_device *device) {
    set(device, CAMBRICONQ_CONTROL_OFFSET, CAMBRICONQ_CONTROL_STOP_MASK);
    const enum nb_status status = cambriconq_settled(device);
    if (status == NB_OK) set(device, CAMBRICONQ_IRQ_STATUS_OFFSET, CAMBRICONQ_IRQ_STATUS_DONE_MASK);
    return status;
}

void nb_cambriconq_enable_interrupts(const struct nb_device *device, bool enable) {
    set(device, CAMBRICONQ_IRQ_ENABLE_OFFSET, enable ? CAMBRICONQ_IRQ_ENABLE_DONE_MASK : 0u);
}

bool nb_cambriconq_interrupt(const struct nb_device *device) {
    const uint32_t pending = get(device, CAMBRICONQ_IRQ_STATUS_OFFSET);
    set(device, CAMBRICONQ_IRQ_STATUS_OFFSET, pending);
    return (pending & CAMBRICONQ_IRQ_STATUS_DONE_MASK) != 0;
}

uint32_t nb_cambriconq_flags(const struct nb_device *device) { return get(device, CAMBRICONQ_STATUS_OFFSET); }

void nb_cambriconq_counters(const struct nb_device *device, struct nb_cambriconq_counters *counters) {
    counters->cycles = get(device, CAMBRICONQ_CYCLES_OFFSET);
    counters->array_cycles = get(device, CAMBRICONQ_ARRAY_CYCLES_OFFSET);
    for (uint32_t i = 0; i < 8u; ++i) counters->phase[i] = get(device, CAMBRICONQ_PHASE0_OFFSET + 4u * i);
}

/* The self test: 4 × 4 results over one vector of K. Integers, which 8 bits and FP32 hold exactly. */

#define TEST_ROWS 4u
#define TEST_PITCH 64u /* words of NBout from one row of results to the next: a multiple of every machine's N/4 */
#define TEST_INSTRUCTIONS 9u

/* The FP32 number of an integer of less than 24 bits. */
static uint32_t fp32(int32_t value) {
    uint32_t magnitude = value < 0 ? (uint32_t)-value : (uint32_t)value, exponent = 127u + 23u;
    if (!magnitude) return 0;
    while (!(magnitude >> 23)) {
        magnitude <<= 1;
        --exponent;
    }
    return (value < 0 ? 1u << 31 : 0u) | exponent << 23 | (magnitude & 0x7FFFFFu);
}

static int32_t cambriconq_test_value(uint32_t seed, uint32_t row, uint32_t col) {
    return (int32_t)((row * 53u + col * 37u + seed * 101u) % 255u) - 127;
}

static void cambriconq_emit(const struct nb_device *device, uint32_t *at, uint32_t opcode, uint32_t *words) {
    words[0] |= opcode;
    nb_write_words(device, *at, words, CAMBRICONQ_INSTRUCTION_WORDS);
    for (uint32_t i = 0; i < CAMBRICONQ_INSTRUCTION_WORDS; ++i) words[i] = 0;
    *at += CAMBRICONQ_INSTRUCTION_BYTES;
}

/* Candidates of an SQU: one, of 8 bits. */
static void cambriconq_test_squ(const struct nb_device *device, uint32_t *at, uint32_t squ, uint32_t *words) {
    PUT(words, CAMBRICONQ_CROSET_REGISTER, squ);
    cambriconq_emit(device, at, CAMBRICONQ_OPCODE_CROSET, words);
    PUT(words, CAMBRICONQ_CROSET_REGISTER, squ + 1u);
    PUT(words, CAMBRICONQ_CROSET_VALUE,
        1u << CAMBRICONQ_SQU_CANDIDATE0_SIZE_SHIFT | 127u << CAMBRICONQ_SQU_CANDIDATE0_CLIP_SHIFT);
    cambriconq_emit(device, at, CAMBRICONQ_OPCODE_CROSET, words);
}

uint32_t nb_cambriconq_self_test_bytes(const struct nb_device *device) {
    const uint32_t row = 4u * CAMBRICONQ_CONFIG(device, 0, COLS);
    return TEST_INSTRUCTIONS * CAMBRICONQ_INSTRUCTION_BYTES + 2u * TEST_ROWS * row + TEST_ROWS * 4u * TEST_ROWS;
}

enum nb_status nb_cambriconq_self_test(struct nb_device *device, uint32_t address) {
    const uint32_t cols = CAMBRICONQ_CONFIG(device, 0, COLS), row = 4u * cols;
    const uint32_t operands = address + TEST_INSTRUCTIONS * CAMBRICONQ_INSTRUCTION_BYTES;
    const uint32_t result = operands + 2u * TEST_ROWS * row;
    uint32_t words[CAMBRICONQ_INSTRUCTION_WORDS] = {0}, at = address;
    if (address % 64u) return NB_BAD_ARGUMENT;

    cambriconq_test_squ(device, &at, CAMBRICONQ_CONSTANT_SQU, words);
    cambriconq_test_squ(device, &at, CAMBRICONQ_CONSTANT_MEMORY_SQU, words);
    for (uint32_t side = 0; side < 2u; ++side) {
        PUT(words, CAMBRICONQ_QLOAD_SIDE, side);
        PUT(words, CAMBRICONQ_QLOAD_SLOT, 2);
        PUT(words, CAMBRICONQ_QLOAD_ROWS, TEST_ROWS);
        PUT(words, CAMBRICONQ_QLOAD_COLS, cols);
        PUT(words, CAMBRICONQ_QLOAD_SRC, operands + side * TEST_ROWS * row);
        PUT(words, CAMBRICONQ_QLOAD_SRC_ROW, row);
        PUT(words, CAMBRICONQ_QLOAD_SRC_COL, 4);
        cambriconq_emit(device, &at, CAMBRICONQ_OPCODE_QLOAD, words);
    }
    PUT(words, CAMBRICONQ_MM_GROUP, 1);
    PUT(words, CAMBRICONQ_MM_ROWS, TEST_ROWS);
    PUT(words, CAMBRICONQ_MM_COLS, TEST_ROWS);
    PUT(words, CAMBRICONQ_MM_DEST_ROW, TEST_PITCH);
    PUT(words, CAMBRICONQ_MM_A_ROW, 2);
    PUT(words, CAMBRICONQ_MM_W_ROW, 2);
    PUT(words, CAMBRICONQ_MM_A_SLOT, 2);
    PUT(words, CAMBRICONQ_MM_W_SLOT, 2);
    PUT(words, CAMBRICONQ_MM_VECTORS, 1);
    cambriconq_emit(device, &at, CAMBRICONQ_OPCODE_MM, words);
    PUT(words, CAMBRICONQ_SSTORE_ROWS, TEST_ROWS);
    PUT(words, CAMBRICONQ_SSTORE_COLS, TEST_ROWS);
    PUT(words, CAMBRICONQ_SSTORE_SRC_ROW, TEST_PITCH);
    PUT(words, CAMBRICONQ_SSTORE_SRC_COL, 1);
    PUT(words, CAMBRICONQ_SSTORE_DEST, result);
    PUT(words, CAMBRICONQ_SSTORE_DEST_ROW, 4u * TEST_ROWS);
    cambriconq_emit(device, &at, CAMBRICONQ_OPCODE_SSTORE, words);
    cambriconq_emit(device, &at, CAMBRICONQ_OPCODE_HALT, words);

    for (uint32_t i = 0; i < 2u * TEST_ROWS * cols; ++i) {
        const uint32_t seed = i / (TEST_ROWS * cols), rest = i % (TEST_ROWS * cols);
        write_word(device, operands + 4u * i, fp32(cambriconq_test_value(seed, rest / cols, rest % cols)));
    }
    clear_words(device, result, TEST_ROWS * TEST_ROWS);
    const enum nb_status status = nb_cambriconq_run(device, address);
    if (status != NB_OK) return status;
    for (uint32_t i = 0; i < TEST_ROWS * TEST_ROWS; ++i) {
        int32_t expected = 0;
        for (uint32_t k = 0; k < cols; ++k) {
            expected += cambriconq_test_value(0, i / TEST_ROWS, k) * cambriconq_test_value(1, i % TEST_ROWS, k);
        }
        if (read_word(device, result + 4u * i) != fp32(expected)) {
            device->place = i;
            return NB_WRONG_RESULT;
        }
    }
    return NB_OK;
}

const char *nb_cambriconq_cause(uint32_t code) {
    switch (code) {
#define CASE(name, cause) \
    case CAMBRICONQ_ERROR_##name: return cause;
        CAMBRICONQ_ERRORS(CASE)
#undef CASE
    default: return "an error code that this driver does not know";
    }
}

#endif
