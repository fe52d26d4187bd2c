"""What channels promise, held over emulators of their platforms."""
