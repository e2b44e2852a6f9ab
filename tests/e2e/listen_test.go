package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// certificate makes a certificate for localhost that signs itself, and returns
// the paths of its two files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert = write(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	key = write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})))
	return cert, key
}

// TestListen opens sockets of every kind at once: UDP over IPv4 and IPv6, TCP,
// TLS. Each takes HEP and plain SIP.
func TestListen(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	p := servers.FreePorts(t, 3)
	udp4, tcp4 := fmt.Sprintf("127.0.0.1:%d", p[0]), fmt.Sprintf("127.0.0.1:%d", p[0])
	udp6, tls4 := fmt.Sprintf("[::1]:%d", p[1]), fmt.Sprintf("127.0.0.1:%d", p[2])
	s := servers.StartSiptraced(t, servers.Command{Bin: program, Args: append([]string{
		"run", "--set", "listen=udp:" + udp4 + ",tcp:" + tcp4 + ",udp:" + udp6 + ",tls:" + tls4,
		"--set", "tls.certificate=" + cert, "--set", "tls.private_key=" + key,
	}, noControl...)})
	for _, a := range []string{udp4, udp6, tls4} {
		if !strings.Contains(s.Stderr(), a) {
			t.Errorf("%s is not in the line that says ready:\n%s", a, s.Stderr())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	sip := func(name string) []byte { return []byte(load.Call(load.Spec{CallID: name}, time.Now())[0].Payload) }
	feed := func(network, addr string, packets ...[]byte) {
		t.Helper()
		if err := vectors.Feed(ctx, network, addr, packets); err != nil {
			t.Fatal(err)
		}
	}
	feed("udp", udp4, good("udp4-hep"), sip("udp4-sip"))
	feed("udp", udp6, good("udp6-hep"), sip("udp6-sip"))
	feed("tcp", tcp4, good("tcp4-hep"), sip("tcp4-sip"), good("tcp4-hep-2"))
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	c, err := d.DialContext(ctx, "tcp", tls4)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Tail(30))
	}
	if _, err := c.Write(slices.Concat(good("tls4-hep"), sip("tls4-sip"))); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	// A client that speaks no TLS must not disturb the others.
	var plain net.Dialer
	c, err = plain.DialContext(ctx, "tcp", tls4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("HEP3 in the clear\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, c) // until the daemon hangs up
	_ = c.Close()

	want := []string{
		"tcp4-hep", "tcp4-hep-2", "tcp4-sip", "tls4-hep", "tls4-sip", "udp4-hep", "udp4-sip", "udp6-hep", "udp6-sip",
	}
	run := &daemon{Siptraced: s, addr: udp4}
	db := sqliteFile(t, filepath.Join(s.Dir, "siptraced.db"))
	db.await(t, run, "sip_trace", len(want), 2*time.Minute)
	run.stop(t)
	rows := db.rows(t, "sip_trace", nil)
	var got []string
	for _, r := range rows {
		got = append(got, r.CallID)
		// Plain SIP has the addresses of its packet; the one that it came to is ours.
		to, ok := map[string]string{
			"udp4-sip": "udp:" + udp4, "udp6-sip": "udp:" + udp6, "tcp4-sip": "tcp:" + tcp4, "tls4-sip": "tls:" + tls4,
		}[r.CallID]
		if ok && r.ToIP != to {
			t.Errorf("%s: toip: got %s, want %s", r.CallID, r.ToIP, to)
		}
		if ok && !strings.HasPrefix(r.FromIP, to[:strings.LastIndexByte(to, ':')+1]) {
			t.Errorf("%s: fromip: got %s, want the same host", r.CallID, r.FromIP)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
