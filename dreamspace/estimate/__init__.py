"""Will a run fit, how long does it take, what does it cost? Free of torch, for the app and the shell."""
