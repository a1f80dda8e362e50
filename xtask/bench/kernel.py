# What a Jupyter client sees: `1+1` in a warm ipykernel, from the request to the end of the reply. Prints nanoseconds.
import statistics
import sys
import time

from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name="python3")
times = []
try:
    for number in range(int(sys.argv[1]) + 20):
        start = time.perf_counter_ns()
        reply = client.execute_interactive("1+1", timeout=30, output_hook=lambda message: None)
        if reply["content"]["status"] != "ok":
            sys.exit("the kernel fails")
        times.append(time.perf_counter_ns() - start)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
print(int(statistics.median(times[20:])))
