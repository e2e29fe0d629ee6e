# Timing constraints of the Cambricon-Q accelerator, any configuration, for OpenSTA and OpenROAD.
#
# One clock; every port belongs to it. The longest path on Nangate45, estimated without wires (make area), is the controller's, near
# 3 ns in every size: begin with half as much again and tighten. Set PERIOD (in ns) before reading this file to override.

if {![info exists PERIOD]} { set PERIOD 4.5 }

create_clock -name clk -period $PERIOD [get_ports clk]
set_clock_uncertainty [expr {0.05 * $PERIOD}] [get_clocks clk]

# The bus, its memory and the memory's banks may use a third of the cycle on either side.
set_input_delay [expr {$PERIOD / 3.0}] -clock clk [all_inputs -no_clocks]
set_output_delay [expr {$PERIOD / 3.0}] -clock clk [all_outputs]
