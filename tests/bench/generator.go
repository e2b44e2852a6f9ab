package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The generator is a process of its own, so that what it takes of the machine
// is neither in the figures of the daemon nor in those of the reference client.
// It is this very program with one flag, whose value is the order as JSON; it
// prints the outcome as JSON.
const generatorFlag = "-generator"

// order says what a generator has to send.
type order struct {
	To     string        `json:"to"`     // host:port
	Length time.Duration `json:"length"` // for so long

	// HEP3 packets at this rate per second. With 0, SIP requests: as many as are
	// answered, Window of them under way.
	Rate   int `json:"rate,omitempty"`
	Window int `json:"window,omitempty"`

	// So many probes per second are among the packets; they tell the time since
	// Epoch, in microseconds of Unix time.
	Probes int   `json:"probes,omitempty"`
	Epoch  int64 `json:"epoch,omitempty"`
}

// outcome is what a generator did. Times are microseconds of Unix time.
type outcome struct {
	Sent     int     `json:"sent"`
	Answered int     `json:"answered,omitempty"`
	Probes   int     `json:"probes,omitempty"`
	First    int64   `json:"first"` // the first packet
	Last     int64   `json:"last"`  // the last one, or the last answer
	CPU      float64 `json:"cpu"`   // seconds, of the sending alone
}

// rate is what was sent in a second.
func (o outcome) rate() float64 {
	return float64(o.Sent) / (float64(max(o.Last-o.First, 1)) / 1e6)
}

func generatorMain(text string, stdout io.Writer) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return fmt.Errorf("generator: %w", err)
	}
	out, err := o.run()
	if err != nil {
		return fmt.Errorf("generator: %w", err)
	}
	return json.NewEncoder(stdout).Encode(out)
}

func (o order) run() (outcome, error) {
	conn, err := net.Dial("udp", o.To)
	if err != nil {
		return outcome{}, err
	}
	defer conn.Close()
	udp := conn.(*net.UDPConn)
	if o.Rate == 0 {
		return o.ask(udp)
	}
	return o.send(udp)
}

// generate runs a generator to its end; what happens meanwhile is the caller's.
func (b *bench) generate(o order) (wait func() outcome) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	text, err := json.Marshal(o)
	if err != nil {
		b.Fatal(err)
	}
	var stdout, stderr strings.Builder
	cmd := exec.Command(self, generatorFlag, string(text))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	b.Cleanup(func() { _ = cmd.Process.Kill() })
	return func() outcome {
		b.Helper()
		select {
		case err = <-done:
		case <-time.After(o.Length + time.Minute):
			err = errors.New("takes too long")
		}
		var out outcome
		if err == nil {
			err = json.Unmarshal([]byte(stdout.String()), &out)
		}
		if err != nil {
			b.Fatalf("generator: %v\n%s", err, stderr.String())
		}
		return out
	}
}

const (
	// tick is how often the sender looks what is due: often enough that a burst
	// is a few dozen packets, seldom enough to leave the CPU to others.
	tick = 500 * time.Microsecond
	// burst is how many packets one system call sends at the most.
	burst = 64
	// slack is how far a sender may be behind its rate: what it could not send
	// for longer than that, because it had no CPU, it does not make up for.
	slack = 20 * time.Millisecond
)

// pace says how many packets are due; the rate is never exceeded for longer
// than the slack.
type pace struct {
	rate  int
	start time.Time
	count float64 // sent, or given up
}

func (p *pace) due(now time.Time) int {
	rate := float64(p.rate)
	target := now.Sub(p.start).Seconds() * rate
	p.count = max(p.count, target-rate*slack.Seconds())
	n := int(target - p.count)
	return n
}

func (p *pace) sent(n int) { p.count += float64(n) }

// send sends HEP3 packets at a rate, whatever becomes of them.
func (o order) send(conn *net.UDPConn) (outcome, error) {
	t, err := newTraffic(prepared)
	if err != nil {
		return outcome{}, err
	}
	s, err := newSender(conn)
	if err != nil {
		return outcome{}, err
	}
	// One goroutine that stays with its thread is all that runs from here on.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	every := 0
	if o.Probes > 0 {
		every = max(o.Rate/o.Probes, 1)
	}
	out := outcome{First: time.Now().UnixMicro()}
	cpu := ownCPU()
	p := &pace{rate: o.Rate, start: time.Now()}
	for {
		now := time.Now()
		if now.Sub(p.start) >= o.Length {
			break
		}
		n := min(p.due(now), burst)
		if n == 0 {
			time.Sleep(tick)
			continue
		}
		for i := range n {
			m := t.at(out.Sent+i, now)
			if every > 0 && (out.Sent+i)%every == 0 {
				m.probe(out.Probes, time.Duration(now.UnixMicro()-o.Epoch)*time.Microsecond)
				out.Probes++
			}
			s.add(m.packet)
		}
		if err := s.flush(); err != nil {
			return out, err
		}
		out.Sent += n
		p.sent(n)
	}
	out.Last, out.CPU = time.Now().UnixMicro(), ownCPU()-cpu
	return out, nil
}

// mmsghdr is the kernel's struct of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// sender sends datagrams over a connected socket, many with one system call.
type sender struct {
	raw  syscall.RawConn
	msgs [burst]mmsghdr
	iovs [burst]unix.Iovec
	n    int
}

func newSender(conn *net.UDPConn) (*sender, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &sender{raw: raw}
	for i := range s.msgs {
		s.msgs[i].hdr.Iov = &s.iovs[i]
		s.msgs[i].hdr.SetIovlen(1)
	}
	return s, nil
}

// add takes a packet, which has to stay as it is until flush.
func (s *sender) add(b []byte) {
	s.iovs[s.n].Base = &b[0]
	s.iovs[s.n].SetLen(len(b))
	s.n++
}

func (s *sender) flush() error {
	for from := 0; from < s.n; {
		var n uintptr
		var errno syscall.Errno
		err := s.raw.Write(func(fd uintptr) bool {
			n, _, errno = syscall.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.msgs[from])), uintptr(s.n-from), unix.MSG_DONTWAIT, 0, 0)
			return errno != syscall.EAGAIN && errno != syscall.EINTR
		})
		if err != nil {
			return err
		}
		if errno != 0 {
			return fmt.Errorf("sendmmsg: %w", errno)
		}
		from += int(n)
	}
	s.n = 0
	return nil
}

// patience is how long an answer may take until the request counts as lost.
const patience = 500 * time.Millisecond

// ask sends SIP requests, one more for each answer. The window bounds what
// waits in the sockets' buffers, so that nothing is lost there, and always keeps
// every worker of the server busy.
func (o order) ask(conn *net.UDPConn) (outcome, error) {
	r := newRequest(conn.LocalAddr().String(), o.To)
	buf := make([]byte, 64<<10)
	out := outcome{First: time.Now().UnixMicro()}
	cpu := ownCPU()
	end := time.Now().Add(o.Length)
	waiting := 0
	send := func() error {
		_, err := conn.Write(r.next())
		out.Sent++
		waiting++
		return err
	}
	for waiting < o.Window {
		if err := send(); err != nil {
			return out, err
		}
	}
	for waiting > 0 {
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return out, err
		}
		_, err := conn.Read(buf)
		over := !time.Now().Before(end)
		switch {
		case err == nil:
			out.Answered++
			out.Last = time.Now().UnixMicro()
			waiting--
			if !over {
				err = send()
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = nil
			waiting = 0 // lost, all of them
			for !over && waiting < o.Window && err == nil {
				err = send()
			}
		}
		if err != nil {
			return out, err
		}
	}
	out.CPU = ownCPU() - cpu
	return out, nil
}

// bodySize makes the request so large that, with its short reply, the mean is
// that of the other traffic.
const bodySize = 780

// request is a SIP request with a Call-ID and a branch of its own each time.
type request struct {
	text           []byte
	callID, branch []byte
	number         int
}

func newRequest(from, to string) *request {
	const mark = "00000000"
	text := strings.Join([]string{
		"MESSAGE sip:bob@" + to + " SIP/2.0",
		"Via: SIP/2.0/UDP " + from + ";rport;branch=z9hG4bK" + mark + ".branch",
		"Max-Forwards: 70",
		`From: "Alice Example" <sip:alice@example.org>;tag=c20518`,
		"To: <sip:bob@example.org>",
		"Call-ID: " + mark + ".call@198.51.100.10",
		"CSeq: 1 MESSAGE",
		"Contact: <sip:user@" + from + ";transport=udp>",
		"User-Agent: Example Phone 12.4.1 (build 20518)",
		"Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, MESSAGE, UPDATE, INFO, SUBSCRIBE, NOTIFY, REFER",
		"Supported: replaces, 100rel, timer, outbound, path",
		"P-Asserted-Identity: <sip:+15550100@example.org;user=phone>",
		"Content-Type: text/plain",
		"Content-Length: " + strconv.Itoa(bodySize),
		"",
		strings.Repeat("The quick brown fox jumps over it. ", 1+bodySize/35)[:bodySize],
	}, "\r\n")
	r := &request{text: []byte(text)}
	at := func(suffix string) []byte {
		i := strings.Index(text, mark+suffix)
		return r.text[i : i+len(mark)]
	}
	r.branch, r.callID = at(".branch"), at(".call")
	return r
}

// next is valid until the next call.
func (r *request) next() []byte {
	digits(r.branch, r.number)
	digits(r.callID, r.number)
	r.number++
	return r.text
}
