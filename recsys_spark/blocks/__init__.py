"""Node-local blocks of histories: built once, mapped by every pass, summed in a fixed order."""
