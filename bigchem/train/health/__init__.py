"""Run health: bad steps, hangs, stragglers, stop signals, time limits, failed peers; the events log.

Imported from outside: device_progress, events, flight_recorder, peers, signals, step_guard, stragglers, time_limit,
watchdog.
"""
