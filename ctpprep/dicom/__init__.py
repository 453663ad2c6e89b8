# SPDX-License-Identifier: Apache-2.0
"""From DICOM, or from a folder of NIfTI files, to a BIDS dataset, and results back to DICOM.

The commands ``ctpprep-bids`` and ``ctpprep-dicom``.

::

    files       find DICOM files, and the study of each
    scan        read the headers of the images of a study
    study       which series are perfusion, and which belong together
    timing      when each image was acquired
    geometry    where each image is
    assembly    frames x slices of a series, and what is missing
    pixels      densities in HU
    nifti       write a series, slice by slice
    sidecar     what a sidecar may contain, and nothing that identifies a person
    labels      participants and sessions, and the private file that links them to the source
    convert     one study
    flat        a folder of NIfTI files
    command     what both commands share
    cli         the command ctpprep-bids
    objects     masks and maps as DICOM objects
    findings    volumes, side and verdict of a series, from its tables
    report      these as a structured report
    pictures    the one-page summary as DICOM objects
    send        sending to a PACS
    export      the command ctpprep-dicom
"""
