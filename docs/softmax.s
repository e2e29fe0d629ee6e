# Softmax of every row of a 4 × 8 matrix of FP32 numbers, from address 0x1000 to address 0x2000.
#
#     make run FILE=docs/softmax.s [MEMORY=image.bin] [OUTPUT=after.bin]
#
# NBout, in FP32 words: the matrix at 0, a column of one number a row at 64.

SLOAD  phase=1 rows=4 cols=8 src=0x1000 src_row=32 dest=0 dest_row=8 dest_col=1

HMAX   phase=1 rows=4 cols=8 src=0 src_row=8 src_col=1 dest=64 dest_row=1
# The column is spread over all columns by a distance of 0.
VSUB   phase=1 rows=4 cols=8 a=0 a_row=8 a_col=1 b=64 b_row=1 b_col=0 dest=0 dest_row=8 dest_col=1
VFUN   phase=1 rows=4 cols=8 function=EXP a=0 a_row=8 a_col=1 dest=0 dest_row=8 dest_col=1
HADD   phase=1 rows=4 cols=8 src=0 src_row=8 src_col=1 dest=64 dest_row=1
VFUN   phase=1 rows=4 cols=1 function=RECIPROCAL a=64 a_row=1 a_col=1 dest=64 dest_row=1 dest_col=1
VMUL   phase=1 rows=4 cols=8 a=0 a_row=8 a_col=1 b=64 b_row=1 b_col=0 dest=0 dest_row=8 dest_col=1

SSTORE phase=1 rows=4 cols=8 src=0 src_row=8 src_col=1 dest=0x2000 dest_row=32
HALT   # without it the program would go on into what lies behind it
