// Go's runtime in the same rows. One row an invocation; prints the figure, or nothing where there is no such thing.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const operations = 1000000

func perOperation(start time.Time, count int) {
	fmt.Println(float64(time.Since(start).Nanoseconds()) / float64(count))
}

func yields(tasks int) {
	each := operations / tasks
	if each < 30 {
		each = 30
	}
	var done sync.WaitGroup
	done.Add(tasks)
	for task := 0; task < tasks; task++ {
		go func() {
			for i := 0; i < each; i++ {
				runtime.Gosched()
			}
			done.Done()
		}()
	}
	start := time.Now()
	done.Wait()
	perOperation(start, each*tasks)
}

func spawn(number int) chan int {
	result := make(chan int, 1)
	go func() { result <- number }()
	return result
}

func spawnJoin() {
	start := time.Now()
	for number := 0; number < operations; number++ {
		<-spawn(number)
	}
	perOperation(start, operations)
}

func spawnAll() {
	start := time.Now()
	tasks := make([]chan int, operations)
	for number := range tasks {
		tasks[number] = spawn(number)
	}
	for _, task := range tasks {
		<-task
	}
	perOperation(start, operations)
}

func pingPong() {
	ping, pong := make(chan struct{}, 1), make(chan struct{}, 1)
	go func() {
		for range ping {
			pong <- struct{}{}
		}
	}()
	start := time.Now()
	for i := 0; i < operations; i++ {
		ping <- struct{}{}
		<-pong
	}
	perOperation(start, operations)
}

func residentBytes() float64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(statm))[1], 64)
	if err != nil {
		panic(err)
	}
	return pages * float64(os.Getpagesize())
}

func parked(tasks int, event bool) {
	before := residentBytes()
	never := make(chan struct{})
	var begun sync.WaitGroup
	begun.Add(tasks)
	for task := 0; task < tasks; task++ {
		go func() {
			waitsFor := never
			if event {
				waitsFor = make(chan struct{})
			}
			begun.Done()
			<-waitsFor
		}()
	}
	begun.Wait()
	fmt.Println((residentBytes() - before) / float64(tasks))
}

// A million timers on the real clock: the lateness in microseconds (median, 99th percentile, most), and the processor
// time of all that per timer in nanoseconds.
func lateness(firstMs, spanMs int) {
	late := make([]float64, operations)
	var done sync.WaitGroup
	done.Add(operations)
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	start := time.Now()
	for number := 0; number < operations; number++ {
		scattered := uint64(number) * 0x9e3779b97f4a7c15 >> 24
		nanos := uint64(firstMs)*1000000 + scattered%(uint64(spanMs)*1000000)
		go func(number int) {
			deadline := start.Add(time.Duration(nanos))
			time.Sleep(time.Until(deadline))
			late[number] = float64(time.Since(deadline).Nanoseconds()) / 1000
			done.Done()
		}(number)
	}
	done.Wait()
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	sort.Float64s(late)
	fmt.Println(late[operations/2], late[operations/100*99], late[operations-1], used/operations)
}

func main() {
	row := os.Args[1]
	if arguments := strings.Split(row, ":"); arguments[0] == "lateness" {
		first, _ := strconv.Atoi(arguments[1])
		span, _ := strconv.Atoi(arguments[2])
		lateness(first, span)
		return
	}
	at := strings.LastIndex(row, "-")
	count, err := strconv.Atoi(row[at+1:])
	switch {
	case row == "spawn-join":
		spawnJoin()
	case row == "spawn-all":
		spawnAll()
	case row == "ping-pong":
		pingPong()
	case err == nil && row[:at] == "yield":
		yields(count)
	case err == nil && row[:at] == "parked":
		parked(count, true)
	case err == nil && row[:at] == "parked-bare":
		parked(count, false)
	}
}
