//go:build defects

package sim

import "github.com/kvorum/kvorum/internal/defect"

// plant switches a defect on by its name.
func plant(name string) (defect.Defect, error) {
	d, err := defectNamed(name)
	if err == nil {
		defect.Plant(d)
	}
	return d, err
}
