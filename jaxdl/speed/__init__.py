"""What compiling buys, and what it costs: speed reports, compilations and their reasons, profiles, the machine itself."""
