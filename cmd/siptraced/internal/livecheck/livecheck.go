package livecheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"

	"siptraced/cmd/siptraced/internal/config"
)

// ErrFailed is wrapped by the error of Run when something can't work.
var ErrFailed = errors.New("live check")

// Run prints a line for each thing it asks. ctx ends it; what it has made is removed
// all the same.
func Run(ctx context.Context, cfg *config.Config, out io.Writer) error {
	c := &check{cfg: cfg, out: out}
	for _, step := range []func(context.Context){c.findRunning, c.user, c.ports, c.spool, c.files, c.database} {
		if step(ctx); ctx.Err() != nil {
			return fmt.Errorf("%w: interrupted, what it had made is removed", ErrFailed)
		}
	}
	if c.failed > 0 {
		return fmt.Errorf("%w: %d of %d FAILED", ErrFailed, c.failed, c.total)
	}
	return nil
}

// check is one run.
type check struct {
	cfg           *config.Config
	out           io.Writer
	running       *instance // nil: none answers
	failed, total int
}

// The verdicts.
const (
	ok      = "ok"
	warning = "warning"
	skipped = "not tried"
	failed  = "FAILED"
)

// say prints one line.
func (c *check) say(verdict, what, format string, args ...any) {
	c.total++
	if verdict == failed {
		c.failed++
	}
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	fmt.Fprintf(c.out, "%-9s  %-8s  %s\n", verdict, what, text)
}

// verdict says how something went: ok with a text, or the error, the key whose value
// is to blame, and what to do.
func (c *check) verdict(what, good string, err error, key, remedy string) {
	if err == nil {
		c.say(ok, what, "%s", good)
		return
	}
	if errors.Is(err, context.Canceled) {
		c.say(skipped, what, "interrupted")
		return
	}
	c.say(failed, what, "%v; %s (key %s: %s)", err, remedy, key, c.cfg.Origin(key))
}

// user says whose rights are tried.
func (c *check) user(context.Context) {
	uid := os.Geteuid()
	me := userName(uid)
	if r := c.running; r != nil && r.uid != uid {
		c.say(warning, "user", "this is %s, and the running siptraced is %s: what it may do is tried by: sudo -u '#%d' siptraced check --live", me, userName(r.uid), r.uid)
		return
	}
	c.say(ok, "user", "the rights of %s are tried", me)
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(uid)
}
