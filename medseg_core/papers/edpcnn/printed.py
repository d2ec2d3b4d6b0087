"""The paper's numbers, digit by digit as printed: Dice, ASSD, HD (Nguyen and Ray 2019).

Units of ASSD and HD are not stated there.
"""

# Table 1, with 10 and with all 1436 training images.
FEW = {
    "U-Net": ("0.695", "7.66", "31.34"),
    "U-Net + DP": ("0.719", "4.66", "27.42"),
    "EDPCNN": ("0.907", "0.84", "10.26"),
}
ALL = {
    "U-Net": ("0.944", "0.59", "6.88"),
    "U-Net + DP": ("0.936", "0.45", "6.19"),
    "EDPCNN": ("0.947", "0.36", "5.73"),
}
# Table 2, with all images, per patient volume.
PHASES = {
    "U-Net, ED": ("0.962", "0.42", "6.34"),
    "U-Net, ES": ("0.926", "0.76", "7.42"),
    "EDPCNN, ED": ("0.961", "0.30", "4.84"),
    "EDPCNN, ES": ("0.934", "0.42", "6.62"),
}
