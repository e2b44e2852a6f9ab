package rules

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"siptraced/compat/script"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// compileRoute compiles the event route; nil when there is none.
func compileRoute(c *Config) (*script.Program, error) {
	if c.Route == nil {
		return nil, nil
	}
	return script.Compile(*c.Route, script.Options{Routes: c.Routes, Defines: c.Defines, Settings: c.Settings, Debug: c.Debug, MaxLoops: c.MaxLoops, Location: c.Location})
}

// correlation is the text of a format for one message; nil where it has none.
func correlation(f *script.Format, mem *script.Message, m *sipmsg.Message, rec *siptrace.Record) []byte {
	text, ok := f.Text(mem, m, rec)
	if !ok {
		return nil
	}
	return append([]byte(nil), text[:min(len(text), maxCorrelation)]...)
}

// xlogRate bounds the lines of xlog() per second: a route may write one for each
// message.
const xlogRate = 1000

// xlogBudget counts the lines of the present second.
type xlogBudget struct {
	mu     sync.Mutex // covers both
	second int64
	lines  int
}

func (b *xlogBudget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := now.Unix(); s != b.second {
		b.second, b.lines = s, 0
	}
	b.lines++
	return b.lines <= xlogRate
}

// logLine writes a line of xlog() into the log.
func (e *Engine) logLine(a *script.Action) {
	level := slog.LevelInfo
	switch { // Kamailio's, from L_ALERT -5 to L_DBG 3
	case a.Level < 0:
		level = slog.LevelError
	case a.Level == 0:
		level = slog.LevelWarn
	case a.Level >= 3:
		level = slog.LevelDebug
	}
	if e.log == nil || !e.log.Enabled(context.Background(), level) {
		return
	}
	if !e.xlog.take(time.Now()) {
		e.count.xlogDropped.Add(1)
		return
	}
	e.log.Log(context.Background(), level, "xlog", "text", strings.TrimRight(string(a.Text), "\r\n"), "at", a.Pos.String())
}
