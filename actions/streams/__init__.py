"""What can happen: following what happens, in order."""
