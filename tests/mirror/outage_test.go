package mirror

import (
	"context"
	"crypto/tls"
	"fmt"
	"syscall"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// TestOutage stops all destinations under 2,000 messages a second and starts
// them again later: two sinks, over TCP and over TLS with a client certificate,
// that end in order, and two more siptraced, one that is told to end and one that
// is killed. In the end each of them has every message once, those of a call in
// order, and so has the database. Only what the two siptraced had taken and not yet
// acknowledged comes to them again: of the one that is told to end, what it could
// not acknowledge in time.
func TestOutage(t *testing.T) {
	t.Parallel()
	const rate = 2000
	down := servers.Pick(3*time.Second, 30*time.Second)
	list := load.Calls(int((down+5*time.Second)/time.Second)*rate, time.Now().Add(-time.Hour))

	ca := servers.NewCA(t)
	server, client := ca.Issue(t, "collector.example"), ca.Issue(t, "mirror.example")
	tcp := collect(t, "tcp", "127.0.0.1")
	secure, err := vectors.Collect("tls", fmt.Sprintf("127.0.0.1:%d", servers.FreePort(t)), &tls.Config{
		Certificates: []tls.Certificate{server.Certificate}, ClientCAs: ca.Pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = secure.Close() })
	asked := options{network: "tcp", port: servers.FreePort(t), dir: t.TempDir()}
	killed := options{network: "tls", port: servers.FreePort(t), dir: t.TempDir(), set: []string{
		"tls.certificate=" + server.File, "tls.private_key=" + server.KeyFile, "tls.client_ca=" + ca.File,
	}}
	behind := []*daemon{start(t, asked), start(t, killed)}

	certificates := fmt.Sprintf("ca: %q, certificate: %q, private_key: %q", ca.File, client.File, client.KeyFile)
	d := start(t, options{yaml: fmt.Sprintf(`destinations:
  - {uri: %q, name: tcp}
  - {uri: %q, name: tls, %s}
  - {uri: "sip:%s;transport=tcp", name: asked, ack: keepalive}
  - {uri: "sip:%s;transport=tls", name: killed, ack: keepalive, server_name: collector.example, %s}
`, uri(tcp, "tcp"), uri(secure, "tls"), certificates, behind[0].addr, behind[1].addr, certificates)})

	f, err := vectors.NewUDPFeeder(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	begin := time.Now()
	stopAt, startAt := begin.Add(2*time.Second), begin.Add(2*time.Second+down)
	stopped, during := 0, 0
	for i, m := range list {
		if stopped == 0 && time.Now().After(stopAt) {
			stopped = i
			behind[0].Signal(t, syscall.SIGTERM)
			behind[1].Kill()
			for _, s := range []*vectors.Sink{tcp, secure} {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		if during == 0 && time.Now().After(startAt) {
			during = i - stopped
			behind[0].Wait(t, 5*time.Minute)
			for _, s := range []*vectors.Sink{tcp, secure} {
				if err := s.Open(); err != nil {
					t.Fatal(err)
				}
			}
			behind[0], behind[1] = start(t, asked), start(t, killed)
		}
		if err := f.Send(ctx, m.Packet); err != nil {
			t.Fatalf("%v\n%s", err, d.Tail(30))
		}
		if ahead := time.Until(begin.Add(time.Duration(i) * time.Second / rate)); ahead > 5*time.Millisecond {
			time.Sleep(ahead)
		}
	}
	took := time.Since(begin)
	if during == 0 {
		t.Fatalf("all messages were sent before the outage was over, in %v", took)
	}
	if err := f.Wait(ctx); err != nil {
		t.Fatalf("%v\n%s", err, d.Tail(30))
	}
	d.fed = len(list)
	c := d.settle(t)
	t.Logf("%d messages, %.0f a second, %d of them while the destinations were away for %v; all delivered %v after the last; connections: tcp %d, tls %d; %v",
		len(list), float64(len(list))/took.Seconds(), during, down, (time.Since(begin) - took).Round(10*time.Millisecond), tcp.Connections(), secure.Connections(), c)
	d.stop(t)
	for i, s := range []*vectors.Sink{tcp, secure} {
		got, err := payloads(closed(t, s))
		if err != nil {
			t.Error(err)
		}
		report(t, []string{"tcp", "tls"}[i], inOrder(list, got))
	}
	for i, name := range []string{"siptraced that was told to end", "siptraced that was killed"} {
		behind[i].table.await(t, len(list))
		behind[i].stop(t)
		problems, repeated := cameAll(list, messagesOf(behind[i].table.rows(t)))
		t.Logf("%s: %d came again", name, len(repeated))
		if len(repeated) > len(list)/[]int{100, 10}[i] {
			problems = append(problems, repeated...)
		}
		report(t, name, problems)
	}
	report(t, "database", inOrder(list, messagesOf(d.table.rows(t))))
}

// messagesOf are the messages of rows.
func messagesOf(rows []vectors.Row) [][]byte {
	var list [][]byte
	for _, r := range rows {
		list = append(list, []byte(r.Msg))
	}
	return list
}

// TestRestart ends siptraced, by a signal and by a kill, while one of its two
// destinations is away: what waited for it comes when both are back, and the
// other one gets nothing again.
func TestRestart(t *testing.T) {
	t.Parallel()
	list := load.Calls(3000, time.Now().Add(-time.Hour))
	there, away := collect(t, "tcp", "127.0.0.1"), collect(t, "tcp", "127.0.0.1")
	o := options{port: servers.FreePort(t), dir: t.TempDir(), set: []string{
		"destinations=" + uri(there, "tcp") + ";name=there," + uri(away, "tcp") + ";name=away",
	}}
	d := start(t, o)
	third := len(list) / 3
	d.feed(t, packets(list[:third])...)
	await(t, d, third, there, away)
	d.settle(t) // what was delivered is known to be
	if err := away.Close(); err != nil {
		t.Fatal(err)
	}
	d.feed(t, packets(list[third:2*third])...)
	await(t, d, 2*third, there)
	c := d.stop(t)
	if got := c["mirror.away.pending"]; got != int64(third) {
		t.Errorf("waits for the one that is away: %d, want %d (%v)", got, third, c)
	}
	d = start(t, o)
	d.feed(t, packets(list[2*third:])...)
	await(t, d, len(list), there)
	servers.WaitFor(t, patience, "the books of the one that is there", func() bool { return d.CountersNow(t)["mirror.there.pending"] == 0 })
	time.Sleep(2 * time.Second) // positions are written once a second
	d.Kill()
	if err := away.Open(); err != nil {
		t.Fatal(err)
	}
	d = start(t, o)
	await(t, d, len(list), away)
	d.settle(t)
	d.stop(t)
	for i, s := range []*vectors.Sink{there, away} {
		got, err := payloads(closed(t, s))
		if err != nil {
			t.Error(err)
		}
		report(t, []string{"there", "away"}[i], inOrder(list, got))
	}
}
