package livecheck

import (
	"context"
	"strings"
	"time"

	"siptraced/rpc"
	"siptraced/rpc/client"
	"siptraced/rpc/serve"
)

// instance is a siptraced that runs with this configuration.
type instance struct {
	pid, uid       int
	version, spool string
	listen         []string // such as udp:127.0.0.1:9060
}

// askTimeout bounds how long a running siptraced may take to answer.
const askTimeout = 2 * time.Second

// findRunning asks at the addresses of remote control.
func (c *check) findRunning(ctx context.Context) {
	var tried []string
	for _, l := range c.cfg.RPC.Serve.Listeners {
		text, possible := clientAddress(l)
		if !possible {
			continue
		}
		addr, err := client.ParseAddress(text)
		if err != nil {
			continue
		}
		tried = append(tried, addr.String())
		v, err := client.New(addr, client.Config{Timeout: askTimeout, Token: l.Token, ReplyDir: l.ReplyDir}).Call(ctx, "siptrace.info")
		if err != nil {
			continue
		}
		if c.running = readInstance(v); c.running != nil {
			c.say(ok, "running", "siptraced %s runs, pid %d: what it uses is not free, and is as it should be", c.running.version, c.running.pid)
			return
		}
	}
	where := strings.Join(tried, ", ")
	if where == "" {
		where = "any address, for there is none of remote control (keys rpc.*)"
	}
	c.say(ok, "running", "no siptraced answers at %s", where)
}

// clientAddress is the address of a listener as clients write it.
func clientAddress(l serve.Listener) (text string, possible bool) {
	network, rest, _ := strings.Cut(l.Address, ":")
	switch {
	case l.TLS != nil && network == "tcp":
		return "", false // it asks for a certificate
	case l.Protocol == serve.Ctl:
		return l.Address, true
	case l.Protocol == serve.JSONRPC && network == "fifo":
		return l.Address, true
	case l.Protocol == serve.JSONRPC:
		return "json:" + l.Address, true
	case l.Protocol == serve.HTTP:
		return "http:" + rest, true
	}
	return "", false
}

// readInstance reads the answer of siptrace.info; nil: it is no such one.
func readInstance(v any) *instance {
	if list, many := v.(rpc.List); many && len(list) == 1 {
		v = list[0]
	}
	s, is := v.(rpc.Struct)
	if !is {
		return nil
	}
	i := &instance{pid: number(s, "pid"), uid: number(s, "uid")}
	if i.pid == 0 {
		return nil
	}
	i.version, i.spool = word(s, "version"), word(s, "spool")
	sockets, _ := s.Get("listen")
	list, _ := sockets.(rpc.List)
	for _, e := range list {
		if text, is := e.(string); is {
			i.listen = append(i.listen, text)
		}
	}
	return i
}

func word(s rpc.Struct, name string) string {
	v, _ := s.Get(name)
	text, _ := v.(string)
	return text
}

func number(s rpc.Struct, name string) int {
	v, _ := s.Get(name)
	switch n := v.(type) {
	case int64:
		return int(n)
	case float64:
		return int(n)
	}
	return 0
}
