"""Not a load: every page of a list fetched over 8 connections with httpx and parsed with orjson, and dropped."""

import argparse
import threading

import httpx
import orjson


def main() -> None:
    """Fetch and parse every page once, and print how many records there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the list's address")
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    counts: list[int] = []
    with httpx.Client(timeout=60) as client:
        first = orjson.loads(client.get(options.url, params={"page": 1}).raise_for_status().content)
    numbers, lock = iter(range(2, first["pagination"]["last_page"] + 1)), threading.Lock()

    def read() -> None:
        found = 0
        with httpx.Client(timeout=60) as client:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    break
                reply = client.get(options.url, params={"page": number}).raise_for_status()
                found += len(orjson.loads(reply.content)["records"])
        counts.append(found)

    threads = [threading.Thread(target=read) for _ in range(options.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len(first["records"]) + sum(counts))


if __name__ == "__main__":
    main()
