package daemon

import (
	"fmt"
	"maps"
	"slices"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/statefile"
)

// saveState writes down what remote control has changed, where the operator wants
// it kept over a restart.
func (d *daemon) saveState() {
	d.saving.Lock()
	defer d.saving.Unlock()
	c := d.cfg.Load()
	if c.RPC.StateFile == "" {
		return
	}
	if err := statefile.Write(c.RPC.StateFile, c.Remote()); err != nil {
		d.log.Error("the state can't be kept (key rpc.state_file)", "err", err)
	}
}

// overlayState is a configuration with what an earlier run wrote down.
func (d *daemon) overlayState(c *config.Config) (*config.Config, error) {
	path := c.RPC.StateFile
	if path == "" {
		return c, nil
	}
	state := map[string]string{}
	if err := statefile.Read(path, &state); err != nil {
		return nil, fmt.Errorf("rpc.state_file %w", err)
	}
	var sets []config.Set
	for _, name := range slices.Sorted(maps.Keys(state)) {
		if _, ok := c.Remotely(name); ok {
			sets = append(sets, config.Set{Name: name, Text: state[name], Origin: path})
		}
	}
	overlaid, err := c.With(sets...)
	if err != nil {
		return nil, fmt.Errorf("rpc.state_file %w; fix or remove it", err)
	}
	for _, s := range sets {
		d.log.Info("setting restored", "setting", s.Name, "to", s.Text)
	}
	return overlaid, nil
}
