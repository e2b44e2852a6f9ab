package livecheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/cmd/siptraced/internal/statefile"
)

// probeTimeout bounds how long a cluster may take.
const probeTimeout = 5 * time.Second

// spool asks whether the spool can be opened, and how much room it has.
func (c *check) spool(ctx context.Context) {
	cfg := c.cfg.Spool
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	place, err := spool.Probe(ctx, cfg)
	used := (*spool.InUseError)(nil)
	switch {
	case cfg.NATS != "":
		c.verdict("spool", "the cluster answers, and has JetStream", err, "spool.nats", "name servers with JetStream, and credentials that may use it")
		for _, w := range place.Warnings {
			c.say(warning, "spool", "%s", w)
		}
	case errors.As(err, &used) && c.running != nil && (used.PID == c.running.pid || used.PID == 0 && c.running.spool == absolute(cfg.Dir)):
		c.say(ok, "spool", "%s is in use by the running siptraced (pid %d)", cfg.Dir, c.running.pid)
	case errors.As(err, &used):
		c.verdict("spool", "", err, "spool.dir", "if that process is to go on, give this one a directory of its own")
	case errors.Is(err, spool.ErrFormerEdition):
		c.verdict("spool", "", err, "spool.dir", "or name another directory, and drain this one later")
	case err != nil:
		c.verdict("spool", "", err, "spool.dir", "name a directory that this user can write")
	case place.Full:
		c.verdict("spool", "", fmt.Errorf("%s: %s are free, and siptraced leaves these to others", cfg.Dir, mib(place.Free)), "spool.dir", "make room, or name a directory on another file system")
	case cfg.MaxBytes > place.Free:
		c.say(warning, "spool", "%s: %s are free, less than spool.max_bytes (%s) allows; at a full disk spool.full decides (%s)", cfg.Dir, mib(place.Free), mib(cfg.MaxBytes), cfg.Full)
	default:
		c.say(ok, "spool", "%s can be written, nobody uses it, %s are free", cfg.Dir, mib(place.Free))
	}
}

func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}

func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

// files asks whether the files that siptraced writes can be written. Those that it
// reads were read with the configuration.
func (c *check) files(context.Context) {
	reject := c.cfg.Store.RejectFile
	c.verdict("file", reject+" can be written (reject file)", appendable(reject), "store.reject_file", "name a file that this user can make and write")
	for _, f := range []struct{ key, path string }{{"rules.state_file", c.cfg.Rules.StateFile}, {"rpc.state_file", c.cfg.RPC.StateFile}} {
		if f.path == "" {
			continue
		}
		var content json.RawMessage
		err := statefile.Read(f.path, &content)
		if err == nil {
			err = replaceable(f.path)
		}
		c.verdict("file", f.path+" can be replaced ("+f.key+")", err, f.key, "name a file in a directory that this user can write")
	}
	if path := c.cfg.Spool.Credentials; path != "" {
		_, err := os.ReadFile(path)
		c.verdict("file", path+" can be read", err, "spool.credentials", "name a file that this user can read")
	}
}

// appendable opens a file as it is written at run time; one that was not there is
// removed again.
func appendable(path string) error {
	_, before := os.Lstat(path)
	f, err := statefile.Open(path)
	if err != nil {
		return err
	}
	err = f.Close()
	if errors.Is(before, fs.ErrNotExist) {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// replaceable makes a file beside the one that is replaced as a whole.
func replaceable(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no plain file", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
