"""What is no table of recipes: kills, mutants of files and of code, memory, starts, a GPU, GPTQ's time."""
