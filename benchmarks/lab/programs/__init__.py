"""What is no table of recipes: kills, mutants of files and of code, memory, starts, GPTQ's time."""
