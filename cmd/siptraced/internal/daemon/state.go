package daemon

import (
	"fmt"
	"slices"

	"siptraced/cmd/siptraced/internal/statefile"
)

// saveState writes down what RPC can change, where the operator wants it kept
// over a restart.
func (d *daemon) saveState() {
	path := d.cfg.RPC.StateFile
	if path == "" {
		return
	}
	d.saving.Lock()
	defer d.saving.Unlock()
	state := map[string]string{}
	for _, name := range settings {
		if v, ok := d.Setting(name); ok {
			state[name] = fmt.Sprint(v)
		}
	}
	if err := statefile.Write(path, state); err != nil {
		d.log.Error("the state can't be kept (key rpc.state_file)", "err", err)
	}
}

// restoreState puts into force what an earlier run wrote down.
func (d *daemon) restoreState() error {
	path := d.cfg.RPC.StateFile
	if path == "" {
		return nil
	}
	state := map[string]string{}
	if err := statefile.Read(path, &state); err != nil {
		return fmt.Errorf("rpc.state_file %w", err)
	}
	for name, value := range state {
		if !slices.Contains(settings, name) {
			continue
		}
		if err := d.put(name, value); err != nil {
			return fmt.Errorf("rpc.state_file %s: %s: %w; mend or remove it", path, name, err)
		}
		d.log.Info("setting restored", "setting", name, "to", value)
	}
	return nil
}
