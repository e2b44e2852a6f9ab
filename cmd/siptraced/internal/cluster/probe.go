package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// monitorPort is where NATS servers have their monitoring pages by custom.
const monitorPort = "8222"

// Probe finds out whether a cluster answers and has JetStream, and leaves nothing
// behind. Warnings are what in its configuration can lose messages, as far as that can
// be seen: the streams' is told to every client; when the servers sync their files
// stands on their monitoring pages alone, and whether these are encrypted, nowhere.
func Probe(ctx context.Context, cfg Config) (warnings []string, err error) {
	e := &Engine{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if err := e.dial(ctx); err != nil {
		return nil, err
	}
	defer e.conn.Close()
	if _, err := call(ctx, e, e.js.AccountInfo); err != nil {
		return nil, fmt.Errorf("spool: cluster (key spool.nats): JetStream: %w", err)
	}
	streams, err := e.compressed(ctx)
	if err != nil {
		return nil, fmt.Errorf("spool: cluster (key spool.nats): %w", err)
	}
	return append(streams, e.unsynced(ctx)...), nil
}

// compressed warns of those of our streams that are compressed.
func (e *Engine) compressed(ctx context.Context) (warnings []string, err error) {
	type stream struct {
		name        string
		compression jetstream.StoreCompression
	}
	list, err := call(ctx, e, func(ctx context.Context) (out []stream, err error) {
		for _, subject := range []string{subjectRoot + ">", "$KV." + bucket + ".>"} {
			l := e.js.ListStreams(ctx, jetstream.WithStreamListSubject(subject))
			for info := range l.Info() {
				out = append(out, stream{info.Config.Name, info.Config.Compression})
			}
			if err := l.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
				return nil, err
			}
		}
		return out, nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if s.compression != jetstream.NoCompression {
			warnings = append(warnings, fmt.Sprintf("stream %s is compressed: NATS servers from before July 2026 damage compressed files when they remove messages (nats-server #8312); use no compression", s.name))
		}
	}
	return warnings, nil
}

// varz is what is of interest on a server's page.
type varz struct {
	Name      string `json:"server_name"`
	JetStream struct {
		Config *struct {
			SyncInterval time.Duration `json:"sync_interval"`
			SyncAlways   bool          `json:"sync_always"`
		} `json:"config"`
		Meta *struct {
			Size int `json:"cluster_size"`
		} `json:"meta"`
	} `json:"jetstream"`
}

// unsynced warns of the servers that acknowledge what is not on their disks, and of
// those of which that is not known.
func (e *Engine) unsynced(ctx context.Context) (warnings []string) {
	servers := map[string]bool{}
	size := 0
	var silent []string
	for _, page := range e.pages() {
		v, err := readPage(ctx, page)
		if err != nil {
			silent = append(silent, fmt.Sprintf("%s (%v)", page, err))
			continue
		}
		if m := v.JetStream.Meta; m != nil {
			size = max(size, m.Size)
		}
		if servers[v.Name] {
			continue
		}
		servers[v.Name] = true
		if c := v.JetStream.Config; c != nil && !c.SyncAlways {
			warnings = append(warnings, fmt.Sprintf("server %s syncs its files every %s: when servers lose power, what they acknowledged since is lost; set sync_interval: always in the block jetstream of its configuration", v.Name, c.SyncInterval))
		}
	}
	if len(servers) == 0 || len(servers) < size {
		unseen := fmt.Sprintf("of %d of %d servers", size-len(servers), size)
		if size == 0 {
			unseen = "of any server"
		}
		warnings = append(warnings, fmt.Sprintf("it can't be seen %s whether it syncs before it acknowledges: see that all have sync_interval: always, and name their monitoring pages (key spool.monitor)%s", unseen, because(silent)))
	}
	return warnings
}

func because(silent []string) string {
	if len(silent) == 0 {
		return ""
	}
	return ": " + strings.Join(silent, ", ")
}

// pages are the servers' monitoring pages: the configured ones, or those at the port
// that they have by custom.
func (e *Engine) pages() (out []string) {
	if e.cfg.Monitor != "" {
		for p := range strings.SplitSeq(e.cfg.Monitor, ",") {
			out = append(out, strings.TrimRight(strings.TrimSpace(p), "/"))
		}
		return out
	}
	for _, s := range e.conn.Servers() {
		if u, err := url.Parse(s); err == nil {
			out = append(out, "http://"+net.JoinHostPort(u.Hostname(), monitorPort))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// readPage reads a server's page /varz.
func readPage(ctx context.Context, page string) (v varz, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout/2)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page+"/varz", nil)
	if err != nil {
		return v, err
	}
	resp, err := http.DefaultClient.Do(req)
	var failed *url.Error
	if errors.As(err, &failed) {
		return v, failed.Err // without the address, which the caller says
	}
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return v, errors.New(resp.Status)
	}
	const maxPage = 1 << 20
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxPage)).Decode(&v); err != nil || v.Name == "" {
		return v, errors.New("this is not the page of a NATS server")
	}
	return v, nil
}
