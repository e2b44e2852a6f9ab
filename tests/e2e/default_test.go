package e2e

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
)

// TestDefaultRun is the main job without any configuration: started in an empty
// directory, the daemon takes HEP and SIP at 127.0.0.1:9060 and writes
// ./siptraced.db.
func TestDefaultRun(t *testing.T) {
	t.Parallel()
	defaultPorts(t)
	const addr = "127.0.0.1:9060"
	for _, network := range []string{"udp", "tcp"} {
		if err := bindable(network, addr); err != nil {
			t.Fatalf("the default port is taken by another program: %v", err)
		}
	}
	dir := t.TempDir()
	d := &daemon{addr: addr, Siptraced: servers.StartSiptraced(t, servers.Command{Bin: program, Args: []string{"run"}, Dir: dir})}
	if out := d.Stdout() + d.Stderr(); !strings.Contains(out, "duplicate_uri") || !strings.Contains(out, addr) {
		t.Errorf("does not say what to put into kamailio.cfg:\n%s", out)
	}
	list := load.Call(load.Spec{}, time.Now())
	for i, m := range list {
		switch {
		case i == 0: // as plain SIP
			d.feed(t, "udp", []byte(m.Payload))
		case i < 5:
			d.feed(t, "udp", m.Packet)
		}
	}
	db := sqliteFile(t, filepath.Join(dir, "siptraced.db"))
	db.await(t, d, "sip_trace", 5, 2*time.Minute)
	var packets [][]byte
	for _, m := range list[5:] {
		packets = append(packets, m.Packet)
	}
	d.feed(t, "tcp", packets...)
	db.await(t, d, "sip_trace", len(list), 2*time.Minute)
	d.stop(t)
	rows := db.rows(t, "sip_trace", nil)
	if len(rows) != len(list) {
		t.Fatalf("got %d rows, want %d\n%s", len(rows), len(list), d.Tail(30))
	}
	for i, r := range rows {
		if r.Msg != list[i].Payload || r.CallID != list[i].CallID {
			t.Errorf("row %d: got %q of call %q, want %q of call %q", i, r.Msg, r.CallID, list[i].Payload, list[i].CallID)
		}
	}
	// A plain SIP duplicate comes from whoever sent it, to the socket it came to.
	if from, _, _ := strings.Cut(rows[0].FromIP, ":"); from != "udp" || rows[0].ToIP != "udp:"+addr {
		t.Errorf("plain SIP: got %s > %s, want udp:127.0.0.1:... > udp:%s", rows[0].FromIP, rows[0].ToIP, addr)
	}
	if want := "udp:198.51.100.10:5062"; rows[1].ToIP != want || rows[1].Method != "INVITE" || rows[1].Status != "100" {
		t.Errorf("row 1: got to %s, %s %s, want to %s, INVITE 100", rows[1].ToIP, rows[1].Method, rows[1].Status, want)
	}
	if got := db.value(t, "SELECT table_version FROM version WHERE table_name = 'sip_trace'"); got != "4" {
		t.Errorf("table version: got %s, want 4", got)
	}

	// The same directory once more: the table is there, rows are added.
	d = &daemon{addr: addr, Siptraced: servers.StartSiptraced(t, servers.Command{Bin: program, Args: []string{"run"}, Dir: dir})}
	d.feed(t, "udp", load.HEP3(load.UDP, netip.MustParseAddrPort("192.0.2.7:5060"), load.Proxy, time.Now(), []byte(
		"OPTIONS sip:192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKo\r\nFrom: <sip:a@192.0.2.7>;tag=o\r\n"+
			"To: <sip:192.0.2.1>\r\nCall-ID: once-more\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")))
	db.await(t, d, "sip_trace", len(list)+1, 2*time.Minute)
	d.stop(t)
	if got := db.value(t, "SELECT callid FROM sip_trace ORDER BY id DESC LIMIT 1"); got != "once-more" {
		t.Errorf("last row: got call %q, want once-more", got)
	}
}

// bindable says why an address cannot be bound.
func bindable(network, addr string) error {
	if network == "udp" {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	return l.Close()
}
