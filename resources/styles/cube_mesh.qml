<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<!-- SPDX-License-Identifier: GPL-2.0-or-later
     Template for cubes shown as an animated mesh. Values are fractions of the largest count, which
     Gridcast takes from the data; {value} in the labels is replaced then. They lie close together at
     the lower end, because most counts are small and a single event must be seen. -->
<qgis styleCategories="Symbology" version="3.22.0">
  <mesh-renderer-settings>
    <active-dataset-group scalar="0" vector="-1"/>
    <scalar-settings group="0" min-val="0" max-val="1" opacity="0.85" interpolation-method="none">
      <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" minimumValue="0" maximumValue="1" labelPrecision="6">
        <item value="0" color="#fcfdbf" alpha="0" label="no event"/>
        <item value="0.01" color="#fcfdbf" alpha="150" label="{value}"/>
        <item value="0.08" color="#feb078" alpha="210" label="{value}"/>
        <item value="0.25" color="#f1605d" alpha="225" label="{value}"/>
        <item value="0.5" color="#982d80" alpha="240" label="{value}"/>
        <item value="1" color="#2d115f" alpha="250" label="{value} events in a cell"/>
      </colorrampshader>
    </scalar-settings>
    <mesh-settings-native enabled="0"/>
    <mesh-settings-edge enabled="0"/>
    <mesh-settings-triangular enabled="0"/>
  </mesh-renderer-settings>
  <name-to-global-index name="events" global-index="0"/>
  <blendMode>0</blendMode>
</qgis>
