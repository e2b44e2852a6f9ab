package control

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// recording is an exchange with the real server, as the packages of rpc keep
// them for their own tests.
type recording struct {
	name           string
	transport      string // unix-stream, unix-datagram, tcp, udp, fifo, datagram, http, mi
	request, reply []byte
	closed         bool // the connection, afterwards
	compact        bool
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// recordings reads all of them.
func recordings(tb testing.TB) []recording {
	tb.Helper()
	var all []recording
	// BINRPC: name, server, transport, connection afterwards, request, reply.
	for line := range strings.Lines(string(readFile(tb, "../../rpc/binrpc/testdata/recorded.txt"))) {
		f := strings.Fields(line)
		if f[0] == "#" || f[1] != "kamailio" { // the others are printing rules of kamcmd
			continue
		}
		r := recording{name: f[0], transport: f[2], closed: f[3] == "closed", request: unhex(tb, f[4])}
		if f[5] != "-" {
			r.reply = unhex(tb, f[5])
		}
		all = append(all, r)
	}
	for line := range strings.Lines(string(readFile(tb, "../../rpc/jsonrpc/testdata/recorded.jsonl"))) {
		var j struct {
			Name, Transport, Request, Reply string
			Compact                         bool
		}
		if err := json.Unmarshal([]byte(line), &j); err != nil {
			tb.Fatal(err)
		}
		if j.Transport != "http" { // these are below, with their headers
			all = append(all, recording{name: j.Name, transport: j.Transport, request: []byte(j.Request), reply: []byte(j.Reply), compact: j.Compact})
		}
	}
	var served []struct {
		Name    string `json:"name"`
		Request string `json:"request_hex"`
		Reply   string `json:"reply_hex"`
	}
	if err := json.Unmarshal(readFile(tb, "../../rpc/serve/testdata/recorded.json"), &served); err != nil {
		tb.Fatal(err)
	}
	for _, j := range served {
		if strings.HasPrefix(j.Name, "http_") {
			all = append(all, recording{name: j.Name, transport: "http", request: unhex(tb, j.Request), reply: unhex(tb, j.Reply), closed: j.Reply == ""})
		}
	}
	files, err := filepath.Glob("../../rpc/mi/testdata/*.json")
	if err != nil {
		tb.Fatal(err)
	}
	for _, file := range files {
		var j struct {
			Request string `json:"request_hex"`
			Reply   string `json:"reply_hex"`
		}
		if err := json.Unmarshal(readFile(tb, file), &j); err != nil {
			tb.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		all = append(all, recording{name: name, transport: "mi", request: unhex(tb, j.Request), reply: unhex(tb, j.Reply)})
	}
	return all
}

// notOurs are recordings of what siptraced has no answer for, or another one on
// purpose.
var notOurs = map[string]string{
	"kamcmd_cfg_list":           "the settings of all of Kamailio",
	"kamcmd_cnt_grps":           "the groups of all of Kamailio",
	"kamcmd_interactive/2":      "cfg.list",
	"kamcmd_interactive/3":      "cnt.grps_list",
	"kamcmd_interactive/4":      "cnt.var_list core",
	"kamcmd_interactive/5":      "cnt.var_list dns",
	"kamcmd_interactive/6":      "cnt.var_list shmem",
	"kamcmd_interactive/8":      "cnt.var_list sl",
	"kamcmd_interactive/9":      "cnt.var_list tcp",
	"kamcmd_echo":               "core.echo",
	"kamcmd_echo_negative":      "core.echo",
	"raw_double":                "core.echo",
	"kamctl_rpc_jsonrpc_echo":   "jsonrpc.echo",
	"kamcmd_listen_alias":       "ctl.listen",
	"kamcmd_who_alias":          "ctl.who",
	"kamcmd_core_info":          "shown by its shape: TestPrograms",
	"kamctl_rpc_core_info":      "shown by its shape: TestPrograms",
	"kamcmd_ps_alias":           "shown by its shape: TestPrograms",
	"kamctl_rpc_ps":             "shown by its shape: TestPrograms",
	"kamcmd_core_sockets_list":  "shown by its shape: TestPrograms",
	"kamctl_rpc_sockets_list":   "shown by its shape: TestPrograms",
	"kamcmd_corex_list_sockets": "shown by its shape: TestPrograms",
	"kamctl_srv_sockets":        "shown by its shape: TestPrograms",
	"openserctl_ps":             "Kamailio's processes",
	"openserctl_which":          "its commands",
	"mi_no_blank_line":          "half a request: TestHostileClients",
	"mi_crlf":                   "half a request: TestHostileClients",
}

// otherwise are replies that differ from the recorded ones on purpose.
var otherwise = map[string]string{
	// This ended the real server; over HTTP it is as here.
	"dgram_jsonrpc_num": "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t{\n\t},\n\t\"id\":\t1\n}",
	// This one was answered late or never, as the odd quote before had swallowed it.
	"fifo_after_quote": "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t\"Enabled\",\n\t\"id\":\t2\n}",
	// The real server reads on past the end of the string.
	"raw_unterminated": "\xa13(\x11\"3D \x01\xf4\x91#command siptrace.statusX not found\x00",
}

// What changes from run to run, or from server to server.
var masks = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(kamailio|siptraced) \d+\.\d+\.\d+ \(\S+/linux\) `), "NAME VERSION (ARCH/OS) "},
	{regexp.MustCompile(`Server:: \S+ \(\S+ \(\S+/linux\)\)`), "Server:: NAME"},
	{regexp.MustCompile(`[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}`), "TIME"},
	{regexp.MustCompile(`("uptime":\t?)\d+`), "${1}N"},
	{regexp.MustCompile(`\d+ \[sec\]`), "N [sec]"},
	// An int of BINRPC behind the member name uptime.
	{regexp.MustCompile(`uptime\x00(?s:\x10.|\x20..|\x00)\x{83}`), "uptime N"},
	// The length of the version, and of bodies with it or an uptime.
	{regexp.MustCompile(`\x{91}(?s:.)NAME`), "NAME"},
	{regexp.MustCompile(`^(?s:(\x{a1}\x13).(....))(NAME|\x03Enow)`), "${1}${2}${3}"},
}

func mask(b []byte) string {
	latin1 := make([]rune, len(b)) // so that patterns can name bytes
	for i, c := range b {
		latin1[i] = rune(c)
	}
	s := string(latin1)
	for _, m := range masks {
		s = m.re.ReplaceAllString(s, m.with)
	}
	return s
}

var (
	replyName   = regexp.MustCompile(`"reply_name": ?"([^"]*)"`)
	miReplyName = regexp.MustCompile(`(?m)^:\w+:(\w+)$`)
)

// TestTranscripts sends the recorded requests to the daemon; it has to give the
// recorded replies.
func TestTranscripts(t *testing.T) {
	replies := servers.ShortDir(t)
	pretty := start(t, options{set: []string{"rpc.reply_dir=" + replies}})
	compact := start(t, options{set: []string{"rpc.reply_dir=" + replies, "rpc.compact=1"}})
	played, all := map[string]int{}, recordings(t)
	left := map[string]bool{}
	for name := range notOurs {
		left[name] = true
	}
	for _, r := range all {
		if notOurs[r.name] != "" {
			delete(left, r.name)
			continue
		}
		kind, _, _ := strings.Cut(r.name, "_")
		played[kind]++
		t.Run(r.name, func(t *testing.T) {
			d := pretty
			if r.compact {
				d = compact
			}
			if want, ok := otherwise[r.name]; ok {
				r.reply = []byte(want)
			}
			// The state before the request shows in the reply; a request that
			// changes it finds the other one.
			request := strings.ToLower(string(r.request))
			word := "on"
			switch {
			case strings.Contains(request, "off") && r.transport != "mi", r.transport == "mi" && strings.Contains(request, "\noff\n"):
			case bytes.Contains(r.reply, []byte("Disabled")), r.transport == "mi" && bytes.Contains(r.reply, []byte("\noff\n")):
				word = "off"
			case strings.Contains(request, `"on`), strings.Contains(request, "\non\n"), strings.Contains(request, "1on\x00"):
				word = "off"
			}
			d.set(t, word)
			d.replay(t, r, replies)
		})
	}
	for name := range left {
		t.Errorf("%s is not among the recordings", name)
	}
	t.Logf("%d recordings; played: %v", len(all), played)
	for kind, least := range map[string]int{"kamcmd": 45, "raw": 20, "dgram": 16, "fifo": 28, "http": 15, "kamctl": 20, "kamcli": 12, "udp": 2, "mi": 8, "openserctl": 16} {
		if played[kind] < least {
			t.Errorf("%s_*: played %d, want %d at least", kind, played[kind], least)
		}
	}
	if t.Failed() {
		return
	}
	for _, d := range []*daemon{pretty, compact} {
		d.MustStop(t)
	}
}

// replay plays one recording.
func (d *daemon) replay(t *testing.T, r recording, replies string) {
	t.Helper()
	var got []byte
	closed := false
	switch r.transport {
	case "unix-stream", "tcp":
		c := dial(t, "unix", d.ctl)
		if r.transport == "tcp" {
			c = dial(t, "tcp", d.tcp)
		}
		half := len(r.request)
		if r.name == "raw_split" {
			half = 20
		}
		write(t, c, r.request[:half])
		if half < len(r.request) {
			time.Sleep(20 * time.Millisecond)
			write(t, c, r.request[half:])
		}
		if r.name == "raw_half_close" {
			if err := c.(*net.UnixConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		got, closed = readQuiet(t, c, atLeast(r))
		// A length that can't be is refused at once; ctl waits for it.
		if want := r.closed || r.name == "raw_huge_len"; closed != want {
			t.Errorf("connection closed: %v, want %v", closed, want)
		}
	case "unix-datagram", "udp":
		c := dial(t, "udp", d.udp)
		if r.transport == "unix-datagram" {
			c = dialGram(t, d.ctlGram)
		}
		write(t, c, r.request)
		got, _ = readQuiet(t, c, atLeast(r))
	case "datagram":
		if r.name == "dgram_unbound_client" {
			write(t, dial(t, "unixgram", d.gram), r.request)
			return // nowhere to reply to; the next recordings show that all is well
		}
		c := dialGram(t, d.gram)
		if strings.Contains(r.name, "udp") {
			c = dial(t, "udp", d.gramUDP)
		}
		write(t, c, r.request)
		got, _ = readQuiet(t, c, atLeast(r))
	case "http":
		d.replayHTTP(t, r)
		return
	case "fifo", "mi":
		path, re := d.fifo, replyName
		if r.transport == "mi" {
			path, re = d.mi, miReplyName
		}
		name := "none"
		if m := re.FindSubmatch(r.request); m != nil && len(m[1]) > 0 {
			name = filepath.Base(string(m[1]))
		}
		if r.name == "fifo_reply_name_not_fifo" {
			file := filepath.Join(replies, name)
			if err := os.WriteFile(file, []byte("plain"), 0o600); err != nil {
				t.Fatal(err)
			}
			writeFIFO(t, path, string(r.request))
			d.set(t, "on")
			if b := readFile(t, file); string(b) != "plain" {
				t.Errorf("the plain file holds %q", b)
			}
			return
		}
		f := replyFIFO(t, filepath.Join(replies, name))
		writeFIFO(t, path, string(r.request))
		got = []byte(readReply(t, f, atLeast(r)))
	default:
		t.Fatalf("transport %q", r.transport)
	}
	if bytes.Contains(r.request, []byte("system.listMethods\x00")) {
		for _, want := range []string{"siptrace.status", "stats.fetchn", "system.listMethods"} {
			if !bytes.Contains(got, []byte(want)) {
				t.Errorf("%q is missing: %q", want, got)
			}
		}
		return
	}
	if bytes.Contains(r.request, []byte("system.listMethods")) {
		if !bytes.HasPrefix(got, []byte("{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t[\"")) || !bytes.Contains(got, []byte(`"siptrace.status", `)) {
			t.Errorf("got %q", got)
		}
		return
	}
	if g, w := mask(got), mask(r.reply); g != w {
		t.Errorf("request %q\ngot  %q\nwant %q", r.request, g, w)
	}
}

// atLeast is how many bytes to wait for; the rest may be shorter than recorded.
func atLeast(r recording) int { return min(len(r.reply), 1) }

func (d *daemon) replayHTTP(t *testing.T, r recording) {
	t.Helper()
	c := dial(t, "tcp", d.http)
	write(t, c, r.request)
	n := bytes.Count(r.reply, []byte("HTTP/1.1 "))
	if n == 0 {
		if got, closed := readQuiet(t, c, 1); len(got) > 0 || !closed {
			t.Errorf("got %q, closed %v, want nothing, closed", got, closed)
		}
		return
	}
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got, want := bufio.NewReader(c), bufio.NewReader(bytes.NewReader(r.reply))
	for range n {
		g, w := readHTTP(t, got), readHTTP(t, want)
		if r.name == "http_other_path" { // its text is the route script's
			g, w = httpReply{status: g.status}, httpReply{status: w.status}
		}
		if g != w {
			t.Errorf("got  %+v\nwant %+v", g, w)
		}
	}
}

// httpReply is what of an HTTP reply has to be as recorded.
type httpReply struct {
	status, contentType, body string
	sia, close                bool
}

func readHTTP(t *testing.T, r *bufio.Reader) httpReply {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return httpReply{resp.Status, resp.Header.Get("Content-Type"), mask(body), resp.Header.Get("Sia") != "", resp.Close}
}
