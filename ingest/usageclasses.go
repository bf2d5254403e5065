package ingest

import "example.com/keytrail/domain"

// UsageClasses returns the classes of usage that this program writes.
func UsageClasses() []string { return []string{usageClassClient, usageClassImport, usageClassVerify} }

// UsageStreams returns the usage streams that writer may write to.
func UsageStreams(writer string) []string {
	var out []string
	for _, class := range []string{usageClassClient, usageClassImport} {
		for slot := range domain.UsageSlots {
			out = append(out, domain.UsageSlotStream(class, slot))
		}
	}
	return append(out, domain.UsageWriterStream(usageClassVerify, writer))
}
