"""LT-OAQ's part of training: a network whose products and quantizations are commands, and thresholds that learn."""
