"""Speed and memory beside the usual way, on a CPU and on a GPU."""
