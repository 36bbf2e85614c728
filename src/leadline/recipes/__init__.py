"""Complete runs, each with command, expected result ± spread, time, machine; and the way to one."""
