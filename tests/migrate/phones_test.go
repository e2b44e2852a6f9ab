package migrate

import (
	"crypto/md5"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// phones are two users at one proxy. What they say is the same in each run, so
// that the tables of two runs can be compared.
type phones struct {
	tb     testing.TB
	proxy  *net.UDPAddr
	domain string
	alice  *net.UDPConn
	bob    *net.UDPConn
	wait   sync.WaitGroup

	mu    sync.Mutex
	seen  map[string]bool
	again int // messages that came more than once: the run was too slow
}

// barrier is a request at the end that nothing is asked of but its answer: then a
// proxy with one worker is done with all before it. What is traced of it may be
// lost.
const barrier = "barrier"

const patience = 5 * time.Second

// newPhones binds the phones' ports.
func newPhones(tb testing.TB, alice, bob, proxy int, domain string) *phones {
	tb.Helper()
	p := &phones{tb: tb, proxy: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: proxy}, domain: domain, seen: map[string]bool{}}
	for _, c := range []struct {
		port int
		conn **net.UDPConn
	}{{alice, &p.alice}, {bob, &p.bob}} {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: c.port})
		if err != nil {
			tb.Fatal(err)
		}
		*c.conn = conn
	}
	p.wait.Go(p.answer)
	return p
}

func (p *phones) close() {
	_ = p.alice.Close()
	_ = p.bob.Close()
	p.wait.Wait()
}

// repeated notes a message, and counts it if it came before.
func (p *phones) repeated(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := strings.Join(headers(text, "Via"), ",") + first(text) + header(text, "CSeq")
	if p.seen[key] {
		p.again++
	}
	p.seen[key] = true
}

func first(text string) string {
	line, _, _ := strings.Cut(text, "\r\n")
	return line
}

// headers are all values of a header, as lines.
func headers(text, name string) (out []string) {
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	for _, l := range strings.Split(head, "\r\n")[1:] {
		if n, v, ok := strings.Cut(l, ":"); ok && strings.EqualFold(n, name) {
			out = append(out, strings.TrimSpace(v))
		}
	}
	return out
}

func header(text, name string) string {
	if list := headers(text, name); len(list) > 0 {
		return list[0]
	}
	return ""
}

// answer is bob: he takes calls, except from those who say that they will give
// up.
func (p *phones) answer() {
	buf := make([]byte, 65536)
	invites := map[string]string{}
	for {
		n, from, err := p.bob.ReadFromUDP(buf)
		if err != nil {
			return
		}
		text := string(buf[:n])
		if strings.HasPrefix(text, "SIP/2.0 ") {
			continue
		}
		p.repeated(text)
		say := func(req, status string) {
			to := header(req, "To")
			if !strings.Contains(to, "tag=") {
				to += ";tag=fix-bob"
			}
			var b strings.Builder
			fmt.Fprintf(&b, "SIP/2.0 %s\r\n", status)
			for _, name := range []string{"Via", "Record-Route"} {
				for _, v := range headers(req, name) {
					fmt.Fprintf(&b, "%s: %s\r\n", name, v)
				}
			}
			fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %s\r\nContact: <sip:bob@%s>\r\nContent-Length: 0\r\n\r\n",
				header(req, "From"), to, header(req, "Call-ID"), header(req, "CSeq"), p.bob.LocalAddr())
			_, _ = p.bob.WriteToUDP([]byte(b.String()), from)
		}
		id := header(text, "Call-ID")
		switch method, _, _ := strings.Cut(text, " "); method {
		case "ACK":
		case "INVITE":
			invites[id] = text
			say(text, "180 Ringing")
			if !strings.Contains(id, "cancel") {
				say(text, "200 OK")
			}
		case "CANCEL":
			say(text, "200 OK")
			say(invites[id], "487 Request Terminated")
		default:
			say(text, "200 OK")
		}
	}
}

// request is one that alice, or bob's phone for his registration, sends.
type request struct {
	method, uri, to, id string
	from                string // user
	cseq                int
	branch              string
	extra               string // header lines
	conn                *net.UDPConn
}

func (p *phones) send(r request) {
	p.tb.Helper()
	if r.branch == "" {
		r.branch = fmt.Sprintf("z9hG4bK-fix-%s-%d", r.id, r.cseq)
	}
	text := fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=%s\r\nMax-Forwards: 70\r\nFrom: <sip:%s@%s>;tag=fix-%s\r\nTo: %s\r\n"+
		"Call-ID: %s@fix\r\nCSeq: %d %s\r\nContact: <sip:%s@%s>\r\n%sContent-Length: 0\r\n\r\n",
		r.method, r.uri, r.conn.LocalAddr(), r.branch, r.from, p.domain, r.from, r.to, r.id, r.cseq, r.method, r.from, r.conn.LocalAddr(), r.extra)
	if _, err := r.conn.WriteToUDP([]byte(text), p.proxy); err != nil {
		p.tb.Fatal(err)
	}
}

// final waits for an answer: a final one, or one with the status.
func (p *phones) final(id, method, status string) string {
	buf := make([]byte, 65536)
	deadline := time.Now().Add(patience)
	for {
		if err := p.alice.SetReadDeadline(deadline); err != nil {
			return ""
		}
		n, _, err := p.alice.ReadFromUDP(buf)
		if err != nil {
			return "" // this proxy does not answer such requests
		}
		text := string(buf[:n])
		if !strings.HasPrefix(text, "SIP/2.0 ") {
			continue
		}
		p.repeated(text)
		if header(text, "Call-ID") != id+"@fix" || !strings.HasSuffix(header(text, "CSeq"), " "+method) {
			continue
		}
		if got := text[len("SIP/2.0 "):][:3]; got == status || got[0] != '1' {
			return text
		}
	}
}

// follow is the request that comes after an answer: to its Contact, along its
// Record-Route. An ACK for a failure stays with the INVITE's transaction.
func (p *phones) follow(r request, answer, method string) {
	r.method, r.to = method, header(answer, "To")
	if strings.HasPrefix(answer, "SIP/2.0 2") {
		if c := header(answer, "Contact"); c != "" {
			r.uri = strings.Trim(c, "<>")
		}
		r.branch = fmt.Sprintf("z9hG4bK-fix-%s-%s", r.id, method)
		routes := headers(answer, "Record-Route")
		for i := len(routes) - 1; i >= 0; i-- {
			r.extra += "Route: " + routes[i] + "\r\n"
		}
	}
	if method == "BYE" {
		r.cseq++
	}
	p.send(r)
}

// traffic is a registration, a call, a call given up, a text, a call to nobody,
// and OPTIONS. It says how many messages came more than once.
func (p *phones) traffic() int {
	p.register()
	to := func(user string) string { return fmt.Sprintf("<sip:%s@%s>", user, p.domain) }
	uri := func(user string) string { return fmt.Sprintf("sip:%s@%s", user, p.domain) }
	invite := func(user, id string) request {
		return request{method: "INVITE", uri: uri(user), to: to(user), id: id, from: "alice", cseq: 1, conn: p.alice}
	}

	call := invite("bob", "call")
	p.send(call)
	if a := p.final(call.id, "INVITE", ""); a != "" {
		p.follow(call, a, "ACK")
		if strings.HasPrefix(a, "SIP/2.0 2") {
			p.follow(call, a, "BYE")
			p.final(call.id, "BYE", "")
		}
	}
	call = invite("bob", "cancel")
	p.send(call)
	if a := p.final(call.id, "INVITE", "180"); strings.HasPrefix(a, "SIP/2.0 180") {
		cancel := call
		cancel.method = "CANCEL"
		p.send(cancel)
		p.final(call.id, "CANCEL", "")
		if a = p.final(call.id, "INVITE", ""); a != "" {
			p.follow(call, a, "ACK")
		}
	} else if a != "" {
		p.follow(call, a, "ACK")
	}
	p.message("text")
	call = invite("nobody", "nobody")
	p.send(call)
	if a := p.final(call.id, "INVITE", ""); a != "" {
		p.follow(call, a, "ACK")
	}
	p.options("options")
	p.options(barrier)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.again
}

// message is a text for bob.
func (p *phones) message(id string) {
	p.tb.Helper()
	p.send(request{method: "MESSAGE", uri: "sip:bob@" + p.domain, to: "<sip:bob@" + p.domain + ">", id: id, from: "alice", cseq: 1, conn: p.alice})
	p.final(id, "MESSAGE", "")
}

// options asks the proxy whether it is there.
func (p *phones) options(id string) {
	p.tb.Helper()
	p.send(request{method: "OPTIONS", uri: "sip:" + p.domain, to: "<sip:" + p.domain + ">", id: id, from: "alice", cseq: 1, conn: p.alice})
	p.final(id, "OPTIONS", "")
}

var challenge = regexp.MustCompile(`realm="([^"]*)".*nonce="([^"]*)"`)

// register is alice's phone registering bob's, as a provisioning system would:
// so one socket reads all answers.
func (p *phones) register() {
	r := request{
		method: "REGISTER", uri: "sip:" + p.domain, to: "<sip:bob@" + p.domain + ">", id: "register", from: "bob", cseq: 1,
		conn: p.alice,
	}
	contact := fmt.Sprintf("Contact: <sip:bob@%s>\r\nExpires: 600\r\n", p.bob.LocalAddr())
	r.extra = contact
	p.sendRegister(r)
	a := p.final(r.id, r.method, "")
	m := challenge.FindStringSubmatch(header(a, "WWW-Authenticate"))
	if m == nil {
		return
	}
	sum := func(s string) string { return fmt.Sprintf("%x", md5.Sum([]byte(s))) }
	response := sum(sum("bob:"+m[1]+":secret") + ":" + m[2] + ":" + sum("REGISTER:"+r.uri))
	r.cseq++
	r.extra = fmt.Sprintf("%sAuthorization: Digest username=\"bob\", realm=%q, nonce=%q, uri=%q, response=%q, algorithm=MD5\r\n", contact, m[1], m[2], r.uri, response)
	p.sendRegister(r)
	p.final(r.id, r.method, "")
}

// sendRegister sends a request without the Contact of the sending phone.
func (p *phones) sendRegister(r request) {
	text := fmt.Sprintf("REGISTER %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK-fix-%s-%d\r\nMax-Forwards: 70\r\nFrom: %s;tag=fix-bob-r\r\nTo: %s\r\n"+
		"Call-ID: %s@fix\r\nCSeq: %d REGISTER\r\n%sContent-Length: 0\r\n\r\n", r.uri, r.conn.LocalAddr(), r.id, r.cseq, r.to, r.to, r.id, r.cseq, r.extra)
	if _, err := r.conn.WriteToUDP([]byte(text), p.proxy); err != nil {
		p.tb.Fatal(err)
	}
}
