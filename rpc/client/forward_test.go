package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"siptraced/rpc"
	"siptraced/rpc/binrpc"
	"siptraced/rpc/client"
	"siptraced/rpc/serve"
)

// forwarding is a registry with one method of its own that asks the server at
// address for all others.
func forwarding(t testing.TB, address string) *rpc.Registry {
	t.Helper()
	f, err := client.NewForwarder(dial(t, address, client.Config{Timeout: time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	reg := rpc.NewRegistry()
	reg.Unknown, reg.UnknownNames = f.Unknown, f.Names
	if err := reg.Register(rpc.Method{Name: "own.method", Help: "Ours.", Handler: func(context.Context, *rpc.Call) (any, error) {
		return "own", nil
	}}); err != nil {
		t.Fatal(err)
	}
	return reg
}

// A Kamailio that is away is told at once, and one that hangs after the timeout.
func TestForwardToNobody(t *testing.T) {
	dir := shortDir(t)
	hanging, err := net.Listen("unix", dir+"/hangs")
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	for address, want := range map[string]string{
		"unix:" + dir + "/none":  "is not there",
		"unixd:" + dir + "/none": "is not there",
		"unix:" + dir + "/hangs": "does not answer in time",
	} {
		reg := forwarding(t, address)
		begin := time.Now()
		_, err := reg.Call(t.Context(), &rpc.Call{Method: "tm.stats"})
		want = "tm.stats is not a method of siptraced, and Kamailio at " + address + " " + want
		if f, ok := errors.AsType[*rpc.Fault](err); !ok || f.Code != 503 || f.Text != want {
			t.Errorf("%s: got %v, want %s", address, err, want)
		}
		if d := time.Since(begin); d > 20*time.Second {
			t.Errorf("%s: took %v", address, d)
		}
		got, err := reg.Call(t.Context(), &rpc.Call{Method: "system.listMethods"})
		if want := (rpc.List{"own.method", "system.listMethods", "system.methodHelp", "system.methodSignature"}); !reflect.DeepEqual(got, want) || err != nil {
			t.Errorf("%s: got %v, %v", address, got, err)
		}
		if v, err := reg.Call(t.Context(), &rpc.Call{Method: "own.method"}); v != "own" || err != nil {
			t.Errorf("%s: got %v, %v", address, v, err)
		}
	}
	if _, err := client.NewForwarder(dial(t, "fifo:"+dir+"/x", client.Config{})); err == nil {
		t.Error("forwards to a FIFO")
	}
}

// kamailio starts a Kamailio with ctl and jsonrpcs in a folder.
func kamailio(t testing.TB, dir string) (ctl, fifo string) {
	t.Helper()
	probe, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := probe.LocalAddr().String()
	_ = probe.Close()
	ctl, fifo = dir+"/kctl", dir+"/kfifo"
	config := fmt.Sprintf(`#!KAMAILIO
debug=-1
log_stderror=yes
children=1
disable_tcp=yes
listen=udp:%[1]s
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
loadmodule "ctl.so"
loadmodule "jsonrpcs.so"
loadmodule "kex.so"
loadmodule "corex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "htable.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "dispatcher.so"
loadmodule "pike.so"
loadmodule "ratelimit.so"
loadmodule "cfg_rpc.so"
loadmodule "counters.so"
modparam("ctl", "binrpc", "unix:%[2]s")
modparam("jsonrpcs", "transport", 2)
modparam("jsonrpcs", "fifo_name", "%[3]s")
modparam("htable", "htable", "one=>size=4;initval=0")
modparam("dispatcher", "list_file", "%[4]s")
request_route { save("location"); drop; }
`, listen, ctl, fifo, dir+"/dispatcher.list")
	if err := errors.Join(os.WriteFile(dir+"/kamailio.cfg", []byte(config), 0o600),
		os.WriteFile(dir+"/dispatcher.list", []byte("1 sip:127.0.0.1:5080 0 0 weight=1\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), "/usr/sbin/kamailio", "-f", dir+"/kamailio.cfg", "-DD", "-E", "-m", "16", "-M", "4", "-Y", dir, "-P", dir+"/pid")
	out, err := os.Create(dir + "/kamailio.log")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: install Debian's kamailio", err)
	}
	t.Cleanup(func() {
		// The group that it was started as: it has processes of its own.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		timer := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		timer.Stop()
	})
	c := dial(t, "unix:"+ctl, client.Config{Timeout: time.Second})
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err = c.Call(t.Context(), "core.version"); err == nil {
			if _, err = os.Stat(fifo); err == nil {
				return ctl, fifo
			}
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(out.Name())
			t.Fatalf("kamailio does not answer: %v\n%s", err, text)
		}
	}
}

// changing is what differs from one call to the next: ids, times, free memory.
var changing = regexp.MustCompile(`"id":\s*\d+|(?i)(used|free|max_used|real_used|fragments|uptime|now|total_size|rcv|counter)\w*"?[:=]\s*\S.*`)

// With the real programs and a real Kamailio: what it answers through another
// server is what it answers itself.
func TestForwardToKamailio(t *testing.T) {
	dir := shortDir(t)
	ctl, fifo := kamailio(t, dir)
	start(
		t, forwarding(t, "unix:"+ctl),
		serve.Listener{Protocol: serve.Ctl, Address: "unix:" + dir + "/ctl"},
		serve.Listener{Protocol: serve.JSONRPC, Address: "fifo:" + dir + "/fifo"},
	)
	for _, call := range []string{
		"core.psx", "core.ps", "core.info", "core.version", "core.uptime", "core.modules", "core.sockets_list", "core.flags",
		"core.tcp_info", "core.tcp_list", "core.tcp_options", "core.aliases_list", "core.shmmem", "core.arg", "core.pwd", "core.udp4_raw_info",
		"core.echo a 5", "core.echo a", "core.prints x", "corex.list_sockets", "corex.list_aliases", "corex.shm_status",
		"tm.stats", "tm.list", "tm.hash_stats", "sl.stats", "cfg.list", "cfg.list core", "cfg.get core debug", "cfg.get no thing",
		"cnt.grps_list", "cnt.var_list core", "cnt.get sl 200_replies", "cnt.grp_get_all dns", "cnt.help sl 200_replies",
		"stats.get_statistics sl:", "stats.get_statistics nothing:", "stats.get_statistics", "stats.fetch sl:", "stats.fetchn sl:",
		"stats.reset_statistics sl:", "stats.clear_statistics sl:", "mod.stats tm all", "pkg.stats",
		"dns.mem_info", "dns.view", "htable.dump one", "htable.listTables", "htable.stats", "htable.sets one k v",
		"htable.get one k", "htable.dump one", "pv.shvGet", "dst_blocklist.mem_info", "dst_blocklist.view",
		"dispatcher.list", "ul.dump", "pike.list", "rl.stats",
		"system.methodHelp core.version", "system.methodHelp no.such", "system.methodHelp", "system.methodSignature x",
		"no.such", "siptrace.status check", "jsonrpc.echo a 5",
	} {
		t.Run(call, func(t *testing.T) {
			for _, program := range []struct{ direct, through string }{
				{"/usr/sbin/kamcmd -s unixs:" + ctl + " " + call, "/usr/sbin/kamcmd -s unixs:" + dir + "/ctl " + call},
				{"RPCFIFOPATH=" + fifo + " /usr/sbin/kamctl rpc " + call, "RPCFIFOPATH=" + dir + "/fifo /usr/sbin/kamctl rpc " + call},
			} {
				want, err1 := exec.CommandContext(t.Context(), "/bin/sh", "-c", "timeout 10 sh -c '"+program.direct+"'").CombinedOutput()
				got, err2 := exec.CommandContext(t.Context(), "/bin/sh", "-c", "timeout 10 sh -c '"+program.through+"'").CombinedOutput()
				g, w := changing.ReplaceAllString(string(got), "X"), changing.ReplaceAllString(string(want), "X")
				if g != w || fmt.Sprint(err1) != fmt.Sprint(err2) {
					t.Errorf("%s\n got %q, %v\nwant %q, %v", program.through, g, err2, w, err1)
				}
			}
		})
	}
	// Both have these.
	out, err := exec.CommandContext(t.Context(), "/usr/sbin/kamcmd", "-s", "unixs:"+dir+"/ctl", "system.listMethods").Output()
	if text := string(out); err != nil || !strings.Contains(text, "own.method\n") || !strings.Contains(text, "tm.stats\n") || strings.Count(text, "system.listMethods\n") != 1 {
		t.Errorf("got %q, %v", text, err)
	}
	out, err = exec.CommandContext(t.Context(), "/usr/sbin/kamcmd", "-s", "unixs:"+dir+"/ctl", "own.method").Output()
	if string(out) != "own\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

// The body of a BINRPC reply passes as it is.
func TestForwardedBytes(t *testing.T) {
	dir := shortDir(t)
	at := start(t, methods(t), serve.Listener{Protocol: serve.Ctl, Address: "unix:" + dir + "/far"})
	reg := forwarding(t, at[0])
	v, err := reg.Call(t.Context(), &rpc.Call{Method: "test.struct"})
	fw, ok := v.(rpc.Forwarded)
	if !ok || err != nil {
		t.Fatalf("got %v, %v", v, err)
	}
	got, err := binrpc.Reply{Cookie: 7, Value: v}.Append(nil)
	if err != nil || !bytes.HasSuffix(got, fw.Body) || len(fw.Body) == 0 {
		t.Errorf("got %x, %v", got, err)
	}
	if _, err := reg.Call(t.Context(), &rpc.Call{Method: "test.fault"}); err == nil || err.Error() != "404 no such thing" {
		t.Errorf("got %v", err)
	}
	if _, err := reg.Call(t.Context(), &rpc.Call{Method: "no.such"}); !errors.Is(err, rpc.ErrUnknownMethod) {
		t.Errorf("got %v", err)
	}
}
