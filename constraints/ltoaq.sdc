# Timing constraints of the LT-OAQ accelerator, any configuration, for OpenSTA and OpenROAD.
#
# One clock; every port belongs to it. The longest path on Nangate45, estimated without wires (make area), is 3.1 ns for tiny
# and 4.2 ns for paper: begin with half as much again and tighten. Set PERIOD (in ns) before reading this file to override.

if {![info exists PERIOD]} { set PERIOD 6.0 }

create_clock -name clk -period $PERIOD [get_ports clk]
set_clock_uncertainty [expr {0.05 * $PERIOD}] [get_clocks clk]

# The bus and its memory may use a third of the cycle on either side.
set_input_delay [expr {$PERIOD / 3.0}] -clock clk [all_inputs -no_clocks]
set_output_delay [expr {$PERIOD / 3.0}] -clock clk [all_outputs]
