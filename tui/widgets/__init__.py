"""The parts of the screens, one file each; they read the view they are given and send no requests."""
