"""What tests of several folders share: waiting, ports, processes, runs, launchers, trainers."""
