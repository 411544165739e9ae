// workload is what the scenarios run in pods: something that uses CPU, or nothing at all.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
)

const usage = `usage: workload COMMAND
  busy [THREADS]   use that many CPUs, one unless said otherwise, until SIGTERM
  sleep            do nothing until SIGTERM`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(64)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 1 && arguments[0] == "sleep":
	case len(arguments) >= 1 && len(arguments) <= 2 && arguments[0] == "busy":
		threads := 1
		if len(arguments) == 2 {
			parsed, err := strconv.Atoi(arguments[1])
			if err != nil || parsed < 1 {
				return fmt.Errorf("busy: THREADS is %q, expected a number above zero", arguments[1])
			}
			threads = parsed
		}
		busy(threads)
	default:
		return fmt.Errorf("unknown arguments %q\n%s", arguments, usage)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	<-ended
	return nil
}

func busy(threads int) {
	runtime.GOMAXPROCS(threads + 1) // one is left for the signal
	for range threads {
		go func() {
			var value uint64 = 1
			for {
				value = value*6364136223846793005 + 1442695040888963407
			}
		}()
	}
}
