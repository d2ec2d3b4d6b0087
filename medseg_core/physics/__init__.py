"""How images come to be: noise laws, deformation, shapes. Pure functions, explicit generators."""
