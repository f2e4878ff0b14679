"""What keeps a run alive or ends it: bad steps, hangs, stragglers, signals, time limits, failed peers.

Imported from outside: device_progress, events, flight_recorder, peers, signals, step_guard, stopwatch, stragglers,
time_limit, watchdog.
"""
