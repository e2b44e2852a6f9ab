package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/rpc"
	"siptraced/rpc/client"
	"siptraced/rpc/flexicli"
	"siptraced/rpc/serve"
)

func TestParseAddress(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want client.Address
	}{
		{"unix:/run/ctl", client.Address{Protocol: "ctl", Network: "unix", Host: "/run/ctl"}},
		{"unixs:/run/ctl", client.Address{Protocol: "ctl", Network: "unix", Host: "/run/ctl"}},
		{"/run/ctl", client.Address{Protocol: "ctl", Network: "unix", Host: "/run/ctl"}},
		{"./a:b", client.Address{Protocol: "ctl", Network: "unix", Host: "./a:b"}},
		{"127.0.0.1", client.Address{Protocol: "ctl", Network: "unix", Host: "127.0.0.1"}},
		{"unixd:/run/ctl", client.Address{Protocol: "ctl", Network: "unixd", Host: "/run/ctl"}},
		{"tcp:h", client.Address{Protocol: "ctl", Network: "tcp", Host: "h:2049"}},
		{"tcp:h:1", client.Address{Protocol: "ctl", Network: "tcp", Host: "h:1"}},
		{"udp:[::1]", client.Address{Protocol: "ctl", Network: "udp", Host: "[::1]:2049"}},
		{"udp:[::1]:5", client.Address{Protocol: "ctl", Network: "udp", Host: "[::1]:5"}},
		{"h:16049", client.Address{Protocol: "ctl", Network: "udp", Host: "h:16049"}},
		{"fifo:/run/f", client.Address{Protocol: "jsonrpc", Network: "fifo", Host: "/run/f"}},
		{"json:fifo:/run/f", client.Address{Protocol: "jsonrpc", Network: "fifo", Host: "/run/f"}},
		{"json:unixd:/run/s", client.Address{Protocol: "jsonrpc", Network: "unixd", Host: "/run/s"}},
		{"json:tcp:h:1", client.Address{Protocol: "jsonrpc", Network: "tcp", Host: "h:1"}},
		{"http:h:1", client.Address{Protocol: "http", Host: "http://h:1/RPC"}},
		{"https://h/x", client.Address{Protocol: "http", Host: "https://h/x"}},
		{"mi:/tmp/openser_fifo", client.Address{Protocol: "mi", Network: "fifo", Host: "/tmp/openser_fifo"}},
		{"flexisip:/tmp/f", client.Address{Protocol: "flexisip_cli", Network: "unix", Host: "/tmp/f"}},
	} {
		got, err := client.ParseAddress(tc.in)
		if got != tc.want || err != nil {
			t.Errorf("%s: got %+v, %v, want %+v", tc.in, got, err, tc.want)
		}
		if again, err := client.ParseAddress(got.String()); again != got || err != nil {
			t.Errorf("%s: %s is read as %+v, %v", tc.in, got, again, err)
		}
	}
	for _, in := range []string{"", "unix:", "tcp:", "json:unix:/x", "json:tcp:h", "json:", "http:", "h:", "http://%"} {
		if got, err := client.ParseAddress(in); err == nil {
			t.Errorf("%q: got %+v", in, got)
		}
	}
}

func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rpc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// methods is a registry with an echo, a fault and a method that hangs.
func methods(t testing.TB) *rpc.Registry {
	t.Helper()
	reg := rpc.NewRegistry()
	for name, h := range map[string]rpc.Handler{
		"test.echo": func(_ context.Context, c *rpc.Call) (any, error) {
			return rpc.List(c.Params), nil
		},
		"test.struct": func(context.Context, *rpc.Call) (any, error) {
			return rpc.Struct{{Name: "b", Value: int64(1)}, {Name: "a", Value: "x"}}, nil
		},
		"test.fault": func(context.Context, *rpc.Call) (any, error) { return nil, rpc.Faultf(404, "no such thing") },
		"test.hang": func(ctx context.Context, _ *rpc.Call) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"test.big": func(context.Context, *rpc.Call) (any, error) { return strings.Repeat("x", 100<<10), nil },
	} {
		if err := reg.Register(rpc.Method{Name: name, Handler: h}); err != nil {
			t.Fatal(err)
		}
	}
	return reg
}

type settings struct{}

func (settings) Sections() []flexicli.Section {
	return []flexicli.Section{{Name: "global", Settings: []flexicli.Setting{{Name: "log-level", Value: "error"}}}}
}

func (settings) Set(context.Context, rpc.Peer, string, string) error { return nil }

// start serves reg; the addresses are those of the listeners, in order.
func start(t testing.TB, reg *rpc.Registry, listeners ...serve.Listener) []string {
	t.Helper()
	s, err := serve.Listen(t.Context(), serve.Config{Listeners: listeners, Limits: serve.Limits{Rate: -1}},
		serve.Handlers{Registry: reg, MI: reg, Flexisip: settings{}})
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if err := s.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	var out []string
	for _, a := range s.Addresses() {
		_, address, _ := strings.Cut(a, " ")
		out = append(out, address)
	}
	return out
}

func dial(t testing.TB, address string, cfg client.Config) *client.Client {
	t.Helper()
	a, err := client.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	return client.New(a, cfg)
}

// everywhere starts a server on all transports and returns a client for each.
func everywhere(t testing.TB, cfg client.Config) map[string]*client.Client {
	t.Helper()
	dir := shortDir(t)
	cfg.ReplyDir = dir
	at := start(
		t, methods(t),
		serve.Listener{Protocol: serve.Ctl, Address: "unix:" + dir + "/ctl"},
		serve.Listener{Protocol: serve.Ctl, Address: "unixd:" + dir + "/ctld"},
		serve.Listener{Protocol: serve.Ctl, Address: "tcp:127.0.0.1:0"},
		serve.Listener{Protocol: serve.Ctl, Address: "udp:127.0.0.1:0"},
		serve.Listener{Protocol: serve.JSONRPC, Address: "fifo:" + dir + "/fifo", ReplyDir: dir},
		serve.Listener{Protocol: serve.JSONRPC, Address: "unixd:" + dir + "/gram"},
		serve.Listener{Protocol: serve.JSONRPC, Address: "tcp:127.0.0.1:0"},
		serve.Listener{Protocol: serve.JSONRPC, Address: "udp:127.0.0.1:0"},
		serve.Listener{Protocol: serve.HTTP, Address: "tcp:127.0.0.1:0", Token: "s3cret"},
		serve.Listener{Protocol: serve.MI, Address: "fifo:" + dir + "/mi", ReplyDir: dir},
		serve.Listener{Protocol: serve.Flexisip, Address: "unix:" + dir + "/flexisip"},
	)
	cfg.Token = "s3cret"
	abstract := cfg
	abstract.ReplyDir = ""
	return map[string]*client.Client{
		"ctl unix":            dial(t, at[0], cfg),
		"ctl unixd":           dial(t, at[1], cfg),
		"ctl unixd abstract":  dial(t, at[1], abstract),
		"ctl tcp":             dial(t, at[2], cfg),
		"ctl udp":             dial(t, at[3], cfg),
		"jsonrpc fifo":        dial(t, at[4], cfg),
		"jsonrpc unixd":       dial(t, "json:"+at[5], cfg),
		"jsonrpc unixd abstr": dial(t, "json:"+at[5], abstract),
		"jsonrpc tcp":         dial(t, "json:"+at[6], cfg),
		"jsonrpc udp":         dial(t, "json:"+at[7], cfg),
		"http":                dial(t, "http:"+strings.TrimPrefix(at[8], "tcp:"), cfg),
		"mi":                  dial(t, "mi:"+strings.TrimPrefix(at[9], "fifo:"), cfg),
		"flexisip_cli":        dial(t, "flexisip:"+strings.TrimPrefix(at[10], "unix:"), cfg),
	}
}

func TestCall(t *testing.T) {
	hasty := everywhere(t, client.Config{Timeout: 300 * time.Millisecond})
	for name, c := range everywhere(t, client.Config{Timeout: time.Minute}) {
		t.Run(name, func(t *testing.T) {
			if name == "flexisip_cli" {
				if got, err := c.Call(t.Context(), "CONFIG_SET", "global/log-level", "debug"); got != "global/log-level: debug" || err != nil {
					t.Errorf("got %v, %v", got, err)
				}
				_, err := c.Call(t.Context(), "CONFIG_GET", "x")
				if f, ok := errors.AsType[*rpc.Fault](err); !ok || f.Text != "Not found: x" {
					t.Errorf("got %v", err)
				}
				return
			}
			want := []any{rpc.List{"a \"b\"", int64(5), 1.5}, rpc.Struct{{Name: "b", Value: int64(1)}, {Name: "a", Value: "x"}}}
			unknown := &rpc.Fault{Code: 500, Text: "Method Not Found"}
			switch {
			case name == "mi":
				want = []any{rpc.List{"a \"b\"", "5", "1.5"}, rpc.List{"b:: 1", "a:: x"}}
				unknown.Text = "command 'no.such' not available"
			case strings.HasPrefix(name, "ctl"):
				unknown.Text = "command no.such not found"
			}
			if got, err := c.Call(t.Context(), "test.echo", "a \"b\"", int64(5), 1.5); !reflect.DeepEqual(got, want[0]) || err != nil {
				t.Errorf("got %#v, %v, want %#v", got, err, want[0])
			}
			if got, err := c.Call(t.Context(), "test.struct"); !reflect.DeepEqual(got, want[1]) || err != nil {
				t.Errorf("got %#v, %v, want %#v", got, err, want[1])
			}
			if name != "ctl udp" && name != "jsonrpc udp" {
				if got, err := c.Call(t.Context(), "test.big"); err != nil || len(fmt.Sprint(got)) != 100<<10 {
					t.Errorf("%d bytes, %v", len(fmt.Sprint(got)), err)
				}
			}
			for method, want := range map[string]*rpc.Fault{"test.fault": {Code: 404, Text: "no such thing"}, "no.such": unknown} {
				_, err := c.Call(t.Context(), method)
				if got, ok := errors.AsType[*rpc.Fault](err); !ok || *got != *want {
					t.Errorf("%s: got %v, want %v", method, err, want)
				}
			}
			_, err := hasty[name].Call(t.Context(), "test.hang")
			if e, ok := errors.AsType[*client.Error](err); !ok || !isTimeout(e) {
				t.Errorf("got %v, want a timeout", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			begin := time.Now()
			if _, err := c.Call(ctx, "test.hang"); err == nil || time.Since(begin) > 30*time.Second {
				t.Errorf("cancelled: %v after %v", err, time.Since(begin))
			}
		})
	}
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// A call leaves no file behind.
func TestNothingIsLeft(t *testing.T) {
	clients := everywhere(t, client.Config{Timeout: 100 * time.Millisecond})
	dir := strings.TrimSuffix(clients["ctl unix"].Address().Host, "/ctl")
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ctl unixd", "jsonrpc fifo", "jsonrpc unixd", "mi"} {
		_, _ = clients[name].Call(t.Context(), "test.echo", "x")
		_, _ = clients[name].Call(t.Context(), "test.hang")
	}
	after, err := os.ReadDir(dir)
	if err != nil || len(after) != len(before) {
		t.Errorf("before %v, after %v, %v", before, after, err)
	}
}

// A server that is away is an error at once.
func TestNoServer(t *testing.T) {
	dir := shortDir(t)
	if err := errors.Join(syscall.Mkfifo(dir+"/fifo", 0o600), os.WriteFile(dir+"/plain", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	for address, want := range map[string]error{
		"unix:" + dir + "/x":          fs.ErrNotExist,
		"unixd:" + dir + "/x":         fs.ErrNotExist,
		"json:unixd:" + dir + "/x":    fs.ErrNotExist,
		"fifo:" + dir + "/x":          fs.ErrNotExist,
		"mi:" + dir + "/x":            fs.ErrNotExist,
		"flexisip:" + dir + "/x":      fs.ErrNotExist,
		"tcp:" + l.Addr().String():    syscall.ECONNREFUSED,
		"udp:" + l.Addr().String():    syscall.ECONNREFUSED,
		"http://" + l.Addr().String(): syscall.ECONNREFUSED,
		"unix:" + dir + "/plain":      syscall.ECONNREFUSED,
		"fifo:" + dir + "/fifo":       nil, // nobody reads
		"fifo:" + dir + "/plain":      nil,
	} {
		begin := time.Now()
		_, err := dial(t, address, client.Config{ReplyDir: dir, Timeout: time.Minute}).Call(t.Context(), "core.version")
		if e, ok := errors.AsType[*client.Error](err); !ok || want != nil && !errors.Is(e, want) {
			t.Errorf("%s: got %v, want %v", address, err, want)
		}
		if d := time.Since(begin); d > 30*time.Second {
			t.Errorf("%s: took %v", address, d)
		}
	}
}

// certificate returns one that is its own authority.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestClientCertificates(t *testing.T) {
	serverCert, serverPool := certificate(t, "server")
	clientCert, clientPool := certificate(t, "ops")
	strangerCert, _ := certificate(t, "stranger")
	config := &tls.Config{Certificates: []tls.Certificate{serverCert}, ClientCAs: clientPool, ClientAuth: tls.RequireAndVerifyClientCert}
	reg := rpc.NewRegistry()
	if err := reg.Register(rpc.Method{Name: "test.peer", Handler: func(_ context.Context, c *rpc.Call) (any, error) {
		return c.Peer.String(), nil
	}}); err != nil {
		t.Fatal(err)
	}
	at := start(t, reg,
		serve.Listener{Protocol: serve.Ctl, Address: "tcp:127.0.0.1:0", TLS: config},
		serve.Listener{Protocol: serve.JSONRPC, Address: "tcp:127.0.0.1:0", TLS: config},
		serve.Listener{Protocol: serve.HTTP, Address: "tcp:127.0.0.1:0", TLS: config})
	for _, address := range []string{at[0], "json:" + at[1], "https:" + strings.TrimPrefix(at[2], "tcp:")} {
		for _, tc := range []struct {
			name string
			cert *tls.Certificate
			ok   bool
		}{{"known", &clientCert, true}, {"stranger", &strangerCert, false}, {"none", nil, false}} {
			config := &tls.Config{RootCAs: serverPool}
			if tc.cert != nil {
				config.Certificates = []tls.Certificate{*tc.cert}
			}
			got, err := dial(t, address, client.Config{TLS: config, Timeout: 30 * time.Second}).Call(t.Context(), "test.peer")
			if text, _ := got.(string); strings.HasSuffix(text, " CN=ops") != tc.ok || (err == nil) != tc.ok {
				t.Errorf("%s, %s: got %v, %v", address, tc.name, got, err)
			}
		}
		if _, err := dial(t, strings.Replace(address, "https", "http", 1), client.Config{Timeout: time.Second}).Call(t.Context(), "test.peer"); err == nil {
			t.Errorf("%s: served without TLS", address)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	for name, c := range everywhere(b, client.Config{}) {
		method, param := "test.echo", "x"
		if name == "flexisip_cli" {
			method, param = "GET", "global/log-level"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Call(b.Context(), method, param); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}
