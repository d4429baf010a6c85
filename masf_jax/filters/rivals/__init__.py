"""Score- and flow-based filters of other papers, one a file; their biases are in docs/rivals.md."""
