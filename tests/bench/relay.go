package main

import (
	"fmt"
	"slices"
	"time"

	"siptraced/tests/servers"
)

// relays measures the commonest use without a database: HEP3 comes in over UDP at a
// rate, and goes on as HEP3, over UDP or TCP. One rate is that of the time to the
// visible row in e2e, the other the highest of e2e's.
func relays(b *bench) {
	t := table{
		title: fmt.Sprintf("HEP3 over UDP passed on as HEP3, %v for each rate", b.opt.length),
		head:  []string{"over", "messages/s", "round", "sent/s", "loss %", "kernel drops", "arrived %", "CPU s/100k", "peak MiB", "others %"},
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, rate := range slices.Compact([]int{b.opt.latency, slices.Max(b.opt.rates)}) {
			var cpus, losses, peaks []float64
			b.repeat(func() (float64, bool) {
				r := b.relay(network, rate)
				cpus, losses, peaks = append(cpus, r.cpu), append(losses, r.loss), append(peaks, r.peak)
				t.add(network, rate, len(cpus), r.sent, 100*r.loss, r.drops, r.arrived, r.cpu, r.peak, r.others)
				return r.others, true
			})
			name := fmt.Sprintf("HEP3 from udp to %s at %d/s", network, rate)
			b.add("-", name+", CPU", median(cpus), "s/100000 messages")
			b.add("-", name+", loss", 100*median(losses), "%")
			b.add("-", name+", peak memory", median(peaks), "MiB")
		}
	}
	t.print(b.out)
}

// relayed is one run.
type relayed struct {
	sent    float64 // messages per second
	loss    float64 // share of the messages that siptraced did not send on
	drops   int64   // datagrams that the kernel dropped before siptraced
	arrived float64 // percent of the bytes that siptraced sent
	cpu     float64 // its CPU seconds per 100,000 messages
	peak    float64 // MiB
	others  float64 // percent of the machine that other programs took
}

func (b *bench) relay(network string, rate int) (r relayed) {
	b.Helper()
	b.section(func() {
		sink, err := newCounter(network)
		if err != nil {
			b.Fatal(err)
		}
		defer sink.close()
		args := []string{"--set", "siptrace.trace_to_database=0", "--set", "destinations=" + fmt.Sprintf("sip:%s;transport=%s;protocol=hep3", sink.addr, network)}
		if b.opt.profile != "" {
			args = append(args, "--cpu-profile", b.absolute(b.opt.profile))
		}
		d := b.siptraced("", args...)
		b.waitQuiet()
		before, err := d.cpu()
		if err != nil {
			b.Fatal(err)
		}
		other := newStrangers()
		out := b.generate(order{To: d.addr, Length: b.opt.length, Rate: rate})()
		var c servers.Counters
		servers.WaitFor(b, time.Minute, "all to be sent on", func() bool {
			last := c[servers.Received]
			time.Sleep(50 * time.Millisecond)
			c = d.CountersNow(b)
			return !d.Running() || sum(c, "pending") == 0 && c[servers.Received] == last
		})
		after, err := d.cpu()
		if err != nil {
			b.Fatal(err)
		}
		if r.peak, err = d.memory("VmHWM"); err != nil {
			b.Fatal(err)
		}
		c = d.stop()
		sink.close()
		sent := sum(c, "sent")
		r.sent, r.loss, r.drops = out.rate(), float64(int64(out.Sent)-sent)/float64(out.Sent), c.Sum("kernel_drops")
		r.arrived = 100 * float64(sink.bytes) / float64(sum(c, "bytes"))
		r.cpu, r.others = per100k(after-before, float64(sent)), other.share(after-before+out.CPU)
		if network == "tcp" && r.arrived != 100 {
			b.Errorf("%.3f %% of the bytes arrived", r.arrived)
		}
	})
	return r
}
