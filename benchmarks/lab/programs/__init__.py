"""What is no table of recipes: kills, memory, starts, a GPU, attention, GPTQ's time."""
