// Command loadgen sends prepared HTTP/1.1 requests over keep-alive connections to a server on loopback and writes one line of JSON:
// how many were answered, how fast, and what sending them cost.
//
// It shares the machine with the server that it measures. So it is one thread with one epoll, every request is complete before the
// clock starts, and answers are only looked at as far as needed to find their end. On each connection one request is under way.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// Bounds that no option passes.
const (
	maxConnections = 512
	maxSeconds     = 60
	maxRequests    = 5_000_000
	maxFailures    = 1_000
	maxRate        = 1_000_000
	drain          = 10 * time.Second
	epollPwait2    = 441 // on all of Linux's architectures, since 5.11
)

// Report is what a run came to. Latencies are in milliseconds, from the first byte sent to the last byte received.
type Report struct {
	Answered   int            `json:"answered"`
	Unexpected int            `json:"unexpected"` // answered, but not as expected
	Broken     int            `json:"broken"`     // never answered
	Seconds    float64        `json:"seconds"`
	P50        float64        `json:"p50_ms"`
	P90        float64        `json:"p90_ms"`
	P99        float64        `json:"p99_ms"`
	Longest    float64        `json:"longest_ms"`
	CPU        float64        `json:"cpu_seconds"`
	RanOut     bool           `json:"ran_out"` // -once, and all requests were sent before the time was over
	Statuses   map[string]int `json:"statuses"`
	Sample     string         `json:"sample"` // the beginning of the first unexpected answer
}

type connection struct {
	fd     int
	buffer []byte
	filled int
	sent   time.Time
	busy   bool
}

type generator struct {
	address     netip.AddrPort
	requests    [][]byte
	once        bool
	limit       int
	expected    int
	rate        float64
	deadline    time.Time
	epoll       int
	connections []*connection
	next        int
	underWay    int
	latencies   []time.Duration
	statuses    [1000]int
	report      Report
}

func main() {
	address := flag.String("address", "", "address and port of the server, on loopback")
	file := flag.String("requests", "", "file of requests, each with its length in decimal and a line feed in front")
	connections := flag.Int("connections", 32, "connections kept open")
	seconds := flag.Float64("seconds", 5, "how long requests are sent")
	limit := flag.Int("limit", maxRequests, "how many requests are sent at most")
	once := flag.Bool("once", false, "send each request of the file once instead of beginning anew")
	expected := flag.Int("status", 200, "the status of a good answer")
	rate := flag.Float64("rate", 0, "requests a second in all; 0: on each connection the next as soon as the last is answered")
	flag.Parse()
	report, err := run(*address, *file, *connections, *seconds, *limit, *once, *expected, *rate)
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		os.Exit(1)
	}
}

func run(address, file string, connections int, seconds float64, limit int, once bool, expected int, rate float64) (*Report, error) {
	target, err := netip.ParseAddrPort(address)
	if err != nil || !target.Addr().IsLoopback() || !target.Addr().Is4() {
		return nil, fmt.Errorf("-address must be an IPv4 loopback address with a port")
	}
	if connections < 1 || connections > maxConnections || seconds <= 0 || seconds > maxSeconds || limit < 1 || rate < 0 || rate > maxRate {
		return nil, fmt.Errorf("at most %d -connections, %d -seconds and a -rate of %d, and at least one of each", maxConnections, maxSeconds, maxRate)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	requests, err := split(content)
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	g := &generator{
		address:   target,
		requests:  requests,
		once:      once,
		limit:     min(limit, maxRequests),
		expected:  expected,
		rate:      rate,
		latencies: make([]time.Duration, 0, 1<<20),
	}
	if g.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	for range connections {
		c := &connection{buffer: make([]byte, 128<<10)}
		g.connections = append(g.connections, c)
		if err := g.open(c); err != nil {
			return nil, err
		}
	}
	measure := g.measure
	if rate > 0 {
		measure = g.pace
	}
	if err := measure(seconds); err != nil {
		return nil, err
	}
	return &g.report, nil
}

// split cuts the file into its requests, without copying them.
func split(content []byte) ([][]byte, error) {
	var requests [][]byte
	for at := 0; at < len(content); {
		end := at
		for end < len(content) && content[end] != '\n' {
			end++
		}
		length, err := strconv.Atoi(string(content[at:end]))
		if err != nil || length < 1 || end+1+length > len(content) {
			return nil, fmt.Errorf("the file of requests is damaged at byte %d", at)
		}
		requests = append(requests, content[end+1:end+1+length])
		at = end + 1 + length
	}
	if len(requests) == 0 {
		return nil, fmt.Errorf("the file holds no request")
	}
	return requests, nil
}

func (g *generator) measure(seconds float64) error {
	cpu := ownCPU()
	begin := time.Now()
	g.deadline = begin.Add(time.Duration(seconds * float64(time.Second)))
	last := begin
	for _, c := range g.connections {
		if err := g.send(c, begin); err != nil {
			return err
		}
	}
	events := make([]syscall.EpollEvent, len(g.connections))
	for g.underWay > 0 {
		ready, err := syscall.EpollWait(g.epoll, events, 1000)
		if err != nil && err != syscall.EINTR {
			return err
		}
		if ready <= 0 {
			if time.Now().After(g.deadline.Add(drain)) {
				g.report.Broken += g.underWay
				break
			}
			continue
		}
		for _, event := range events[:ready] {
			c := g.connections[event.Fd]
			done, err := g.receive(c)
			if err != nil {
				if err := g.fail(c); err != nil {
					return err
				}
			} else if !done {
				continue
			}
			last = time.Now()
			if err := g.send(c, last); err != nil {
				return err
			}
		}
	}
	g.report.CPU = ownCPU() - cpu
	g.report.Seconds = last.Sub(begin).Seconds()
	g.summarize()
	return nil
}

// pace sends at even intervals, whether or not earlier requests are answered, as long as a connection is free. A request that had to
// wait for one is late by the server's doing, so its latency counts from when it was due.
func (g *generator) pace(seconds float64) error {
	cpu := ownCPU()
	begin := time.Now()
	g.deadline = begin.Add(time.Duration(seconds * float64(time.Second)))
	interval := time.Duration(float64(time.Second) / g.rate)
	free := slices.Clone(g.connections)
	events := make([]syscall.EpollEvent, len(g.connections))
	starved := false
	due, last := begin, begin
	for {
		now := time.Now()
		for len(free) > 0 && !due.After(now) && due.Before(g.deadline) {
			c := free[len(free)-1]
			free = free[:len(free)-1]
			from := now
			if starved {
				from = due
			}
			due = due.Add(interval)
			if err := g.send(c, from); err != nil {
				return err
			}
		}
		starved = !due.After(now)
		over := !due.Before(g.deadline)
		if over && g.underWay == 0 {
			break
		}
		if now.After(g.deadline.Add(drain)) {
			g.report.Broken += g.underWay
			break
		}
		wait := time.Second
		if !over && !starved {
			wait = due.Sub(now)
		}
		ready, err := g.wait(events, wait)
		if err != nil {
			return err
		}
		for _, event := range events[:ready] {
			c := g.connections[event.Fd]
			busy := c.busy
			done, err := g.receive(c)
			if err != nil {
				if err := g.fail(c); err != nil {
					return err
				}
			} else if !done {
				continue
			}
			last = time.Now()
			// One that failed while it was free is in the list already.
			if busy {
				free = append(free, c)
			}
		}
	}
	g.report.CPU = ownCPU() - cpu
	g.report.Seconds = last.Sub(begin).Seconds()
	g.summarize()
	return nil
}

// wait is epoll_pwait2(2), because a millisecond is too coarse for even intervals.
func (g *generator) wait(events []syscall.EpollEvent, limit time.Duration) (int, error) {
	timeout := syscall.NsecToTimespec(int64(max(limit, 0)))
	ready, _, failed := syscall.Syscall6(
		epollPwait2, uintptr(g.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(&timeout)), 0, 0,
	)
	if failed == syscall.EINTR {
		return 0, nil
	}
	if failed != 0 {
		return 0, failed
	}
	return int(ready), nil
}

// open connects, and lets epoll name the connection by its place in the list.
func (g *generator) open(c *connection) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(g.address.Port()), Addr: g.address.Addr().As4()}); err != nil {
		syscall.Close(fd)
		return fmt.Errorf("connecting to %s: %w", g.address, err)
	}
	// Without it the kernel holds back the end of a request that is longer than a segment.
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return err
	}
	c.fd, c.filled = fd, 0
	place := int32(slices.Index(g.connections, c))
	return syscall.EpollCtl(g.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: place})
}

// send puts the next request on its way, unless the time is over or there is none.
func (g *generator) send(c *connection, now time.Time) error {
	for now.Before(g.deadline) && g.next < g.limit {
		if g.once && g.next == len(g.requests) {
			g.report.RanOut = true
			return nil
		}
		request := g.requests[g.next%len(g.requests)]
		g.next++
		c.sent, c.busy = now, true
		g.underWay++
		// One request is under way, so the socket's buffer is empty and takes all of it.
		if n, err := syscall.Write(c.fd, request); err == nil && n == len(request) {
			return nil
		}
		if err := g.fail(c); err != nil {
			return err
		}
		now = time.Now()
	}
	return nil
}

// receive reads what there is; true when an answer is complete. An error means that the connection is of no more use.
func (g *generator) receive(c *connection) (bool, error) {
	n, err := syscall.Read(c.fd, c.buffer[c.filled:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if n == 0 {
		return false, fmt.Errorf("closed by the server")
	}
	c.filled += n
	answer, err := parse(c.buffer[:c.filled])
	if err != nil || !answer.complete {
		return false, err
	}
	if !c.busy {
		return false, fmt.Errorf("an answer that nobody asked for")
	}
	g.latencies = append(g.latencies, time.Since(c.sent))
	g.statuses[answer.status]++
	if answer.status != g.expected {
		g.report.Unexpected++
		if g.report.Sample == "" {
			g.report.Sample = string(c.buffer[:min(c.filled, 600)])
		}
	}
	c.busy, c.filled = false, 0
	g.underWay--
	if answer.closes {
		syscall.Close(c.fd)
		return true, g.open(c)
	}
	return true, nil
}

// fail counts a request that will not be answered, and opens the connection anew.
func (g *generator) fail(c *connection) error {
	if c.busy {
		g.report.Broken++
		g.underWay--
		c.busy = false
	}
	if g.report.Broken > maxFailures {
		return fmt.Errorf("more than %d requests were not answered", maxFailures)
	}
	syscall.Close(c.fd)
	return g.open(c)
}

func (g *generator) summarize() {
	slices.Sort(g.latencies)
	g.report.Answered = len(g.latencies)
	g.report.P50, g.report.P90 = quantile(g.latencies, 0.5), quantile(g.latencies, 0.9)
	g.report.P99, g.report.Longest = quantile(g.latencies, 0.99), quantile(g.latencies, 1)
	g.report.Statuses = map[string]int{}
	for status, count := range g.statuses {
		if count > 0 {
			g.report.Statuses[strconv.Itoa(status)] = count
		}
	}
}

// quantile is the smallest latency, in ms, that at least this share of all does not exceed.
func quantile(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(share*float64(len(sorted))+0.999999) - 1
	return float64(sorted[max(0, min(rank, len(sorted)-1))]) / float64(time.Millisecond)
}

func ownCPU() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
